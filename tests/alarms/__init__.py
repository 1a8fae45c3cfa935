"""Alarms by others: against local servers that speak the APIs of the services."""
