"""Calendars: named days, kept in the store and shared by many jobs, on which those don't fire."""

from lockbeat.calendars.closed import Closed
from lockbeat.calendars.copies import Copies, View, read_view
from lockbeat.calendars.values import Calendar, CalendarEntry, Dates, check_calendar
from lockbeat.calendars.verbs import Calendars, excluding, mend

__all__ = [
    "Calendar",
    "CalendarEntry",
    "Calendars",
    "Closed",
    "Copies",
    "Dates",
    "View",
    "check_calendar",
    "excluding",
    "mend",
    "read_view",
]
