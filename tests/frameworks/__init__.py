"""Web frameworks and their servers, as real processes."""
