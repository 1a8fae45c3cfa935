"""Leases: holding something for a limited time, and the keeper that renews what the process holds."""
