"""Periodic work that fires exactly when it is due and only once, however many instances run it."""
