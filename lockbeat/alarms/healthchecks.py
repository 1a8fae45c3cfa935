"""healthchecks.io, or a Healthchecks of one's own: pings by slug. https://healthchecks.io/docs/http_api/"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from lockbeat.alarms.checkins import CheckIn, Monitor, base_url, check_in_id, secret
from lockbeat.alarms.http import Http

SUFFIX = {"in_progress": "/start", "ok": "", "error": "/fail"}
LONGEST = 365 * 86_400
"""Seconds; of a period or a grace time, as it takes them."""


class Healthchecks(Monitor):
    """Pings a check for each slot.

    ping_key: the project's.
    api_key: with it a check is made from the job's trigger (read-write, of the project); without, its first ping makes one whose
        schedule somebody has to set.
    url, api_url: of another Healthchecks.
    jobs, tags: see `Monitor`.

    Raises: InvalidArgument for what can't be used.
    """

    def __init__(
        self,
        ping_key: str,
        *,
        api_key: str | None = None,
        url: str = "https://hc-ping.com",
        api_url: str = "https://healthchecks.io",
        jobs: Collection[str] | None = None,
        tags: Collection[str] | None = None,
    ) -> None:
        super().__init__(jobs=jobs, tags=tags)
        self._pings = f"{base_url('url', url)}/{quote(secret('ping_key', ping_key), safe='')}"
        self._key = None if api_key is None else secret("api_key", api_key)
        self._api = base_url("api_url", api_url)
        self._made: dict[str, dict[str, Any]] = {}

    async def send(self, http: Http, told: CheckIn) -> None:
        if self._key is not None:
            await self._make(http, told, self._key)
        rid = check_in_id(told.job.name, told.slot)
        query = {"rid": str(rid)} if self._key is not None else {"rid": str(rid), "create": "1"}
        url = f"{self._pings}/{told.slug}{SUFFIX[told.status]}"
        await http.send("POST", url, params=query, content=told.message.encode())

    async def _make(self, http: Http, told: CheckIn, key: str) -> None:
        """Make the check, or set its schedule; once for each definition of the job."""
        schedule = told.schedule
        grace_ms = schedule.margin_ms + (schedule.longest_ms or 0)
        check: dict[str, Any] = {"name": told.job.name, "slug": told.slug, "unique": ["slug"]}
        check["grace"] = min(max(math.ceil(grace_ms / 1000), 60), LONGEST)
        if schedule.crontab is not None:
            check |= {"schedule": schedule.crontab, "tz": schedule.timezone}
        else:
            check["timeout"] = min(max(round((schedule.period_ms or 0) / 1000), 60), LONGEST)
        if self._made.get(told.slug) != check:
            await http.send("POST", f"{self._api}/api/v3/checks/", json=check, headers={"X-Api-Key": key})
            self._made[told.slug] = check
