"""Calendars: named days, kept in the store and shared by many jobs, on which those don't fire."""

from lockbeat.calendars.values import Calendar, CalendarEntry, Dates
from lockbeat.calendars.verbs import Calendars, excluding

__all__ = ["Calendar", "CalendarEntry", "Calendars", "Dates", "excluding"]
