"""Alarms by others: check-ins of each slot to services that watch cron jobs, and signed webhooks. `Beat(monitors=[...])`."""

from lockbeat.alarms.alarms import Alarms, check_monitors
from lockbeat.alarms.checkins import CheckIn, Monitor, Schedule, check_in_id
from lockbeat.alarms.cronitor import Cronitor
from lockbeat.alarms.healthchecks import Healthchecks
from lockbeat.alarms.sentry import Sentry
from lockbeat.alarms.webhook import Webhook

__all__ = [
    "Alarms",
    "CheckIn",
    "Cronitor",
    "Healthchecks",
    "Monitor",
    "Schedule",
    "Sentry",
    "Webhook",
    "check_in_id",
    "check_monitors",
]
