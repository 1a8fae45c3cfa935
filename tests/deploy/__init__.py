"""The files under deploy/: what can not be run here is checked by its linter or its schema."""
