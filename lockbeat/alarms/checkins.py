"""Check-ins: what a service that watches cron jobs is told of a slot, and how its monitor is made from the job's trigger."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from lockbeat.alarms.http import Http
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.events import Event, RunCancelled, RunDone, SlotFired, SlotMissed, SlotSkipped, TaskDead
from lockbeat.jobs import Job, task_id
from lockbeat.store import reasons
from lockbeat.triggers import Cron, Every, Trigger
from lockbeat.triggers.between import Between
from lockbeat.triggers.by_hand import Called
from lockbeat.values.durations import instant

Status = Literal["in_progress", "ok", "error"]
MOST = 5
"""Slots of one entry of the ledger that are told, the newest; services take a few a minute."""
ON_PURPOSE = (reasons.EXCLUDED, reasons.PAUSED, reasons.SKIP_NEXT, reasons.RETIRED)
"""Reasons for which a skipped slot is as it should be."""
IDS = uuid.uuid5(uuid.NAMESPACE_DNS, "lockbeat")
MINUTE_MS = 60_000


def check_in_id(job: str, slot: datetime, within: str = "") -> uuid.UUID:
    """The id of a slot's check-in, the same in every instance: uuid5 of JOB@SLOT.

    within: a part of the service, if it has parts.
    """
    return uuid.uuid5(uuid.uuid5(IDS, within) if within else IDS, task_id(job, round(slot.timestamp() * 1000)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is to run, as services put it."""

    crontab: str | None
    """Five fields; None: it is a period."""
    period_ms: int | None
    timezone: str
    margin_ms: int
    """So late a slot may be."""
    longest_ms: int | None
    """So long a run may take."""

    @classmethod
    def of(cls, job: Job, *, named: bool = False) -> Schedule | None:
        """None: no service has a form for it, or it is shorter than a minute; what is `named` is told as if it were a minute."""
        trigger: Trigger | None = job.trigger
        while isinstance(trigger, Between | Called):
            trigger = trigger.trigger if isinstance(trigger, Between) else trigger.slots
        margin_ms = max(job.window_ms or MINUTE_MS, MINUTE_MS) + job.jitter_ms
        if isinstance(trigger, Every) and (named or trigger.period_ms >= MINUTE_MS):
            line = _crontab(trigger)
            return cls(line, None if line else max(trigger.period_ms, MINUTE_MS), "UTC", margin_ms, job.timeout_ms)
        if isinstance(trigger, Cron):
            fields = trigger.expression.split()
            if len(fields) == 6 and (named or fields[0].isdecimal()):
                fields = fields[1:]
            zone = iana(trigger.timezone)
            plain = len(fields) == 5 and all(re.fullmatch(r"[0-9a-z*,/-]+", field, re.IGNORECASE) for field in fields)
            if plain and zone is not None:
                return cls(" ".join(fields), None, zone, margin_ms, job.timeout_ms)
        return None


def iana(zone: str) -> str | None:
    """A zone by a name that services know: of offsets the whole hours have one, whose sign is turned. None: it has none."""
    found = re.fullmatch(r"([+-])(\d\d):(\d\d)(:\d\d)?", zone)
    if found is None:
        return zone
    hours = int(found[2])
    east = found[1] == "+"
    return None if found[3] != "00" or found[4] or hours > (14 if east else 12) else f"Etc/GMT{'-' if east else '+'}{hours}"


def _crontab(trigger: Every) -> str | None:
    """A period as a cron line in UTC, where one has the same slots: services count a period from the last check-in, and drift."""
    period, rest = divmod(trigger.period_ms, MINUTE_MS)
    anchor, more = divmod(trigger.anchor_ms, MINUTE_MS)
    if rest or more or not period:
        return None
    minute, hour = anchor % 60, anchor // 60
    if 60 % period == 0 and period < 60:
        return f"{minute % period}-59/{period} * * * *" if period > 1 else "* * * * *"
    if period % 60 == 0 and 1440 % period == 0:
        hours = period // 60
        return f"{minute} {hour % hours}-23/{hours} * * *" if 1 < hours < 24 else f"{minute} {'*' if hours == 1 else hour} * * *"
    return None


@dataclass(frozen=True, slots=True)
class CheckIn:
    """What is told of a slot."""

    job: Job
    slot: datetime
    status: Status
    schedule: Schedule
    took: float | None = None
    """Seconds."""
    message: str = ""

    @property
    def slug(self) -> str:
        """The job's name in the letters that services take; no two jobs share one."""
        plain = re.sub(r"[^a-z0-9_-]+", "-", self.job.name.lower()).strip("-_")[:50]  # Sentry strips both off a slug,
        if plain == self.job.name and not plain.isdigit():  # and takes none of digits alone
            return plain
        return f"{plain[:41] or 'job'}-{hashlib.blake2b(self.job.name.encode(), digest_size=4).hexdigest()}"


def check_ins(event: Event, job: Job, schedule: Schedule) -> list[CheckIn]:
    """What services are told of an event of a job; most are told nothing."""
    slot = getattr(event, "slot", None)
    if slot is None:
        return []
    if isinstance(event, SlotFired):
        return [CheckIn(job, slot, "in_progress", schedule)]
    if isinstance(event, RunDone):
        return [CheckIn(job, slot, "ok", schedule, event.took)]
    if isinstance(event, TaskDead):
        return [CheckIn(job, slot, "error", schedule, None, event.reason or "it failed")]
    if isinstance(event, RunCancelled):
        return [CheckIn(job, slot, "error", schedule, None, event.reason)]
    if isinstance(event, SlotMissed | SlotSkipped):
        well = isinstance(event, SlotSkipped) and event.code in ON_PURPOSE
        said = f"{'skipped' if isinstance(event, SlotSkipped) else 'missed'}: {event.reason}"
        return [CheckIn(job, one, "ok" if well else "error", schedule, None, said) for one in _slots(event, job)]
    return []


def _slots(event: SlotMissed | SlotSkipped, job: Job) -> list[datetime]:
    """Those of an entry that are told, the oldest first."""
    if event.last == event.slot or event.slots == 1:
        return [event.slot]
    first_ms, at_ms = round(event.slot.timestamp() * 1000), round(event.last.timestamp() * 1000)
    trigger = job.trigger.slots if isinstance(job.trigger, Called) and job.trigger.slots else job.trigger
    found: list[int] = []
    while len(found) < MOST:
        slot_ms = trigger.prev(at_ms)
        if slot_ms is None or slot_ms < first_ms:
            break
        found.append(slot_ms)
        at_ms = slot_ms - 1
    return [instant(slot_ms) for slot_ms in reversed(found)] or [event.slot]


class Monitor:
    """A service that is told of slots.

    jobs: the names of the jobs that it watches; None: all that run once a minute or less often.
    tags: of these only those that have one of the tags; None: all.
    """

    def __init__(self, *, jobs: Collection[str] | None, tags: Collection[str] | None) -> None:
        for argument, words in (("jobs", jobs), ("tags", tags)):
            if words is not None and (isinstance(words, str) or not all(isinstance(word, str) for word in words)):
                raise InvalidType(argument, "must be several names, not one str")
        self._jobs = None if jobs is None else frozenset(jobs)
        self._tags = None if tags is None else frozenset(tags)

    @property
    def name(self) -> str:
        """For the log."""
        return type(self).__name__

    def watches(self, job: Job) -> bool:
        """Whether it is told of a job's slots."""
        return (self._jobs is None or job.name in self._jobs) and (self._tags is None or not self._tags.isdisjoint(job.tags))

    def schedule(self, job: Job) -> Schedule | None:
        """How it is told when a job runs; None: it is not told of it."""
        return Schedule.of(job, named=self._jobs is not None) if self.watches(job) else None

    async def send(self, http: Http, told: CheckIn) -> None:
        """Tell it. The same again changes nothing there. Raises `NotTold`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{self.name}()"  # without its keys


def secret(argument: str, text: object) -> str:
    """A key or a secret; the error does not show it."""
    if not isinstance(text, str):
        raise InvalidType(argument, f"must be a str, not {type(text).__name__}")
    if not text.strip():
        raise InvalidArgument(argument, "must not be empty")
    return text.strip()


def base_url(argument: str, url: object) -> str:
    """Of a service; the error does not show it, for there may be a key in it."""
    if not isinstance(url, str) or not re.fullmatch(r"https?://\S+", url) or not usable(url):
        raise InvalidArgument(argument, "must be a URL that begins with https://HOST")
    return url.rstrip("/")


def usable(url: str) -> bool:
    """Whether its host and port can be read."""
    try:
        said = urlsplit(url)
        return bool(said.hostname) and said.port != 0
    except ValueError:
        return False
