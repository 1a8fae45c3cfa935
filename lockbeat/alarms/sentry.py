"""Sentry Crons: check-ins as its SDKs send them, in envelopes. https://develop.sentry.dev/sdk/telemetry/check-ins/"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from lockbeat.alarms.checkins import MINUTE_MS, CheckIn, Monitor, Schedule, check_in_id, secret, usable
from lockbeat.alarms.http import Http
from lockbeat.errors import InvalidArgument

UNITS = (("day", 1440), ("hour", 60), ("minute", 1))


class Sentry(Monitor):
    """Tells Sentry Crons of each slot; its monitors are made from the jobs' triggers.

    dsn: https://KEY@HOST/PROJECT, as the project's settings have it.
    environment: as it calls it.
    jobs, tags: see `Monitor`.

    Raises: InvalidArgument for what can't be used.
    """

    def __init__(
        self,
        dsn: str,
        *,
        environment: str = "production",
        jobs: Collection[str] | None = None,
        tags: Collection[str] | None = None,
    ) -> None:
        super().__init__(jobs=jobs, tags=tags)
        said = secret("dsn", dsn)
        split = urlsplit(said if usable(said) else "")
        path, _, project = split.path.rpartition("/")
        if split.scheme not in ("http", "https") or not (split.username and split.hostname) or not re.fullmatch(r"\d+", project):
            raise InvalidArgument("dsn", "must be https://KEY@HOST/PROJECT")
        host = split.netloc.rpartition("@")[2]
        self._url = f"{split.scheme}://{host}{path}/api/{project}/envelope/"
        self._auth = f"Sentry sentry_version=7, sentry_client=lockbeat/1, sentry_key={split.username}"
        self._environment = secret("environment", environment)

    async def send(self, http: Http, told: CheckIn) -> None:
        within = "" if self._environment == "production" else self._environment
        payload: dict[str, Any] = {
            "check_in_id": check_in_id(told.job.name, told.slot, within).hex,
            "monitor_slug": told.slug,
            "status": told.status,
            "environment": self._environment,
            "monitor_config": _config(told.schedule),
        }
        if told.took is not None:
            payload["duration"] = round(told.took, 3)
        lines = ({"sent_at": datetime.now(UTC).isoformat()}, {"type": "check_in"}, payload)
        body = "\n".join(json.dumps(line) for line in lines)
        headers = {"X-Sentry-Auth": self._auth, "Content-Type": "application/x-sentry-envelope"}
        await http.send("POST", self._url, content=body.encode(), headers=headers)


def _config(schedule: Schedule) -> dict[str, Any]:
    if schedule.crontab is not None:
        when: dict[str, Any] = {"type": "crontab", "value": schedule.crontab}
    else:
        minutes = max(round((schedule.period_ms or 0) / MINUTE_MS), 1)
        unit, size = next((unit, size) for unit, size in UNITS if minutes % size == 0)
        when = {"type": "interval", "value": minutes // size, "unit": unit}
    config = {"schedule": when, "timezone": schedule.timezone, "checkin_margin": math.ceil(schedule.margin_ms / MINUTE_MS)}
    if schedule.longest_ms is not None:
        config["max_runtime"] = max(math.ceil(schedule.longest_ms / MINUTE_MS), 1)
    return config
