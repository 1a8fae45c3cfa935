"""Cronitor: telemetry events, and monitors. https://cronitor.io/docs/telemetry-api and /monitor-api"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from lockbeat.alarms.checkins import MINUTE_MS, CheckIn, Monitor, base_url, check_in_id, secret
from lockbeat.alarms.http import Http

STATES = {"in_progress": "run", "ok": "complete", "error": "fail"}
LONGEST_MESSAGE = 1000


class Cronitor(Monitor):
    """Tells Cronitor of each slot; its monitors are made from the jobs' triggers.

    api_key: one that may configure monitors and send telemetry.
    environment: as it calls it; None: its default.
    url, api_url: where it is.
    jobs, tags: see `Monitor`.

    Raises: InvalidArgument for what can't be used.
    """

    def __init__(
        self,
        api_key: str,
        *,
        environment: str | None = None,
        url: str = "https://cronitor.link",
        api_url: str = "https://cronitor.io",
        jobs: Collection[str] | None = None,
        tags: Collection[str] | None = None,
    ) -> None:
        super().__init__(jobs=jobs, tags=tags)
        self._key = secret("api_key", api_key)
        self._environment = None if environment is None else secret("environment", environment)
        self._events = f"{base_url('url', url)}/p/{quote(self._key, safe='')}"
        self._api = f"{base_url('api_url', api_url)}/api/monitors"
        self._made: dict[str, dict[str, Any]] = {}

    async def send(self, http: Http, told: CheckIn) -> None:
        await self._make(http, told)
        query = {"state": STATES[told.status], "series": check_in_id(told.job.name, told.slot).hex}
        if told.message:
            query["message"] = told.message[:LONGEST_MESSAGE]
        if told.took is not None:
            query["metric"] = f"duration:{told.took:.3f}"
        if self._environment is not None:
            query["env"] = self._environment
        await http.send("GET", f"{self._events}/{told.slug}", params=query)

    async def _make(self, http: Http, told: CheckIn) -> None:
        """Make the monitor, or set its schedule; once for each definition of the job."""
        schedule = told.schedule
        monitor: dict[str, Any] = {"type": "job", "key": told.slug, "name": told.job.name}
        monitor["grace_seconds"] = math.ceil(schedule.margin_ms / 1000)
        if schedule.crontab is not None:
            monitor |= {"schedule": schedule.crontab, "timezone": schedule.timezone}
        else:
            monitor["schedule"] = f"every {max(round((schedule.period_ms or 0) / MINUTE_MS), 1)} minutes"
        if schedule.longest_ms is not None:
            monitor["assertions"] = [f"metric.duration < {math.ceil(schedule.longest_ms / 1000)} seconds"]
        if self._made.get(told.slug) != monitor:
            await http.send("PUT", self._api, json={"monitors": [monitor]}, auth=(self._key, ""))
            self._made[told.slug] = monitor
