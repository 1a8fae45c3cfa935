"""A job: a periodic definition as data. Pure: no store, no clock."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, Literal, TypedDict, get_args

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.retry import MOST_ATTEMPTS, Exponential, Fixed, Retry, retry_from_json
from lockbeat.triggers import Cron, Trigger, isoformat, jitter_ms, missed, trigger_from_json
from lockbeat.triggers.rules import UNKNOWN, rules_version
from lockbeat.values.checks import one_of, whole
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name

Overlap = Literal["skip", "allow"]
Catchup = Literal["latest", "skip"]


class JobOptions(TypedDict, total=False):
    """What the decorators take besides the trigger and the name; see the fields of `Job`. Durations: seconds or timedelta."""

    queue: str
    overlap: Overlap
    catchup: Catchup
    window: Seconds | None
    jitter: Seconds
    timeout: Seconds | None
    max_attempts: int
    retry: Retry | None
    lease: Seconds
    priority: int
    keep: int


SKIP_WINDOW = 10.0
"""Seconds that a slot may be late under catch-up `skip` before it counts as missed: a take-over is no outage."""
MOST_COUNTED = 1000
"""Missed slots are counted up to here; a longer outage says "too many to count"."""


def task_id(job: str, slot_ms: int) -> str:
    """The identity of what fires: one task for each job and slot."""
    return f"{job}@{slot_ms}"


@dataclass(frozen=True)
class Job:
    """What is to be done periodically, and by which rules. Validated when made: InvalidArgument names what is wrong."""

    name: str
    trigger: Trigger
    queue: str = "default"
    overlap: Overlap = "skip"
    """When a slot comes due while the job's last task has not ended: `skip` it (the ledger says so), or `allow` both."""
    catchup: Catchup = "latest"
    """After an outage: fire the `latest` slot that came due, or `skip` it if it is more than `window` late."""
    window_ms: int | None = None
    """Fire a slot only within this time; None: 10 s under `skip`, without limit under `latest`."""
    jitter_ms: int = 0
    """Hold each slot back by 0 to this, by a digest of job and slot, never to the next slot."""
    timeout_ms: int | None = None
    """Cancel an attempt that runs longer."""
    max_attempts: int = 1
    retry: Retry | None = None
    lease_ms: int = 5000
    """An attempt whose instance dies is noticed after this time."""
    priority: int = 0
    """From -49 to 49; the higher, the sooner it is claimed."""
    keep: int = 100
    """Ledger entries to keep."""

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("queue", self.queue)
        if not isinstance(self.trigger, Trigger):
            raise InvalidType("trigger", f"must be a Cron, Every or At, not {type(self.trigger).__name__}")
        one_of("overlap", self.overlap, get_args(Overlap))
        one_of("catchup", self.catchup, get_args(Catchup))
        if self.retry is not None and not isinstance(self.retry, (Fixed, Exponential)):
            raise InvalidType("retry", f"must be Fixed or Exponential, not {type(self.retry).__name__}")
        whole("max_attempts", self.max_attempts, 1, MOST_ATTEMPTS)
        whole("priority", self.priority, -49, 49)
        whole("keep", self.keep, 1, 100_000)

    @classmethod
    def declare(
        cls,
        name: str,
        trigger: Trigger,
        *,
        window: Seconds | None = None,
        jitter: Seconds = 0,
        timeout: Seconds | None = None,
        lease: Seconds = 5,
        **rest: Any,
    ) -> Job:
        """A job from durations in seconds (or timedelta)."""
        known = JobOptions.__annotations__
        for unknown in sorted(rest.keys() - known.keys()):
            near = difflib.get_close_matches(unknown, known, 1)
            raise InvalidArgument(unknown, f"no such option of a job{f'; did you mean {near[0]!r}?' if near else ''}")
        return cls(
            name,
            trigger,
            window_ms=None if window is None else milliseconds("window", window),
            jitter_ms=milliseconds("jitter", jitter, least=0),
            timeout_ms=None if timeout is None else milliseconds("timeout", timeout),
            lease_ms=milliseconds("lease", lease, least=0.1),
            **rest,
        )

    @property
    def fires_within_ms(self) -> int:
        """How long after its slot a job may be fired, what it is held back by included; -1: however late."""
        if self.window_ms is not None:
            return self.window_ms + self.jitter_ms
        return round(SKIP_WINDOW * 1000) + self.jitter_ms if self.catchup == "skip" else -1

    @cached_property
    def definition(self) -> str:
        """The job as JSON, as the store keeps it."""
        return f'{{"trigger":{_trigger_text(self.trigger)},{_options_text(self.retry, *_options(self))}'

    @cached_property
    def rev(self) -> str:
        """Changes with the definition; the part before the dot only with what decides the slots."""
        return f"{_trigger_digest(self.trigger)}{self.jitter_ms}.{_digest(self.definition)}"

    @cached_property
    def record(self) -> str:
        """What each of its tasks carries: `MAX_ATTEMPTS JSON`."""
        record: dict[str, Any] = {
            "name": self.name,
            "job": self.name,
            "queue": self.queue,
            "overlap": self.overlap,
            "priority": self.priority,
            "lease_ms": self.lease_ms,
        }
        if self.retry:
            record["retry"] = self.retry.to_json()
        if self.fires_within_ms >= 0:
            record["window_ms"] = self.fires_within_ms
        if self.timeout_ms:
            record["timeout_ms"] = self.timeout_ms
        return f"{self.max_attempts} {json.dumps(record, separators=(',', ':'))}"

    @classmethod
    def from_definition(cls, name: str, text: str | bytes) -> Job:
        """The job that `definition` wrote. Raises InvalidArgument for what a newer lockbeat wrote and this one can't read."""
        try:
            data: Mapping[str, Any] = json.loads(text)
            unknown = data.keys() - _FIELDS
            if unknown:
                raise InvalidArgument("definition", f"job {name!r} has fields unknown here: {', '.join(sorted(unknown))}")
            rest = {key: value for key, value in data.items() if key not in ("trigger", "retry")}
            retry = retry_from_json(data["retry"]) if data.get("retry") else None
            return cls(name, trigger_from_json(data["trigger"]), retry=retry, **rest)
        except InvalidArgument:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise InvalidArgument("definition", f"job {name!r} can't be read: {problem!r}") from None

    def due(self, slot_ms: int, next_ms: int | None) -> int:
        """When a slot is to be fired: itself plus its jitter."""
        return slot_ms + (jitter_ms(self.name, slot_ms, self.jitter_ms, next_ms) if self.jitter_ms else 0)

    def first(self, after_ms: int) -> Slot | None:
        """The first slot after an instant."""
        slot = self.trigger.next(after_ms)
        return None if slot is None else Slot(slot, self.due(slot, self.trigger.next(slot) if self.jitter_ms else None))

    def again(self, slot_ms: int, now_ms: int, rules: str = UNKNOWN) -> tuple[Slot | None, str] | None:
        """Where a job stands instead of a stored slot that it can't have, and why; None: the slot is right.

        `rules`: version of the time zones' rules by which it was reckoned. What newer rules than ours made is right.
        """
        trigger, mine = self.trigger, rules_version()
        if not (isinstance(trigger, Cron) and trigger.timezone != "UTC") or trigger.prev(slot_ms) == slot_ms:
            if slot_ms <= now_ms or (first := trigger.next(now_ms)) == slot_ms:
                return None
            return self._slot(first), f"the server's clock was set back: its next slot stood at {isoformat(slot_ms)}"
        first = trigger.next(now_ms)
        if UNKNOWN not in (rules, mine) and rules > mine and (first is None or slot_ms <= (trigger.next(first) or slot_ms)):
            return None
        # The nearest slot stands in its place, which may be one that should have been fired by now.
        before, after = trigger.prev(slot_ms), trigger.next(slot_ms)
        if before is not None and before <= now_ms and (after is None or slot_ms - before < after - slot_ms):
            first = before
        elif after is not None and after <= now_ms:
            first = after
        by = f"{rules} then, {mine} now" if rules != mine else f"{mine} now"
        return self._slot(first), f"{isoformat(slot_ms)} is no slot any more: the rules of its time zone changed (tzdata {by})"

    def plan(self, slot_ms: int, now_ms: int) -> Plan:
        """What to fire when `slot_ms` has come due by `now_ms`, and what follows."""
        trigger = self.trigger
        following = trigger.next(slot_ms)
        if following is None or following > now_ms:
            return Plan(slot_ms, slot_ms, slot_ms, 0, self._slot(following))
        late = missed(trigger, slot_ms, now_ms, MOST_COUNTED)
        latest, following, count = late.last, late.next, late.count
        if self.jitter_ms and self.due(latest, following) > now_ms:
            # The latest slot is held back still: it is the next, and the one before it is to be fired.
            following, latest = latest, max(trigger.prev(latest - 1) or slot_ms, slot_ms)
            count = None if count is None else count - 1
        if latest == slot_ms:
            return Plan(slot_ms, slot_ms, slot_ms, 0, self._slot(following))
        last_missed = max(trigger.prev(latest - 1) or slot_ms, slot_ms)
        return Plan(latest, slot_ms, last_missed, -1 if count is None else count - 1, self._slot(following))

    def _slot(self, slot_ms: int | None) -> Slot | None:
        if slot_ms is None:
            return None
        return Slot(slot_ms, self.due(slot_ms, self.trigger.next(slot_ms) if self.jitter_ms else None))


_FIELDS = frozenset(field.name for field in fields(Job))
_OPTIONS = tuple(sorted(_FIELDS - {"name", "trigger", "retry"}))
_options = attrgetter(*_OPTIONS)


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot, and when it is to be fired: later than the slot by its jitter."""

    slot_ms: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One slot to fire; those before it, from `first` to `last`, that are missed; and the next one."""

    fire: int
    first: int
    last: int
    count: int
    """How many are missed; 0: none; -1: too many to count."""
    next: Slot | None


# A hundred thousand jobs have a few thousand triggers, and next to all of them the same options.


@lru_cache(maxsize=1024)
def _options_text(retry: Retry | None, *options: object) -> str:
    """The rest of a definition, behind its trigger."""
    data = dict(zip(_OPTIONS, options, strict=True), retry=retry.to_json() if retry else None)
    return json.dumps(data, separators=(",", ":"))[1:]


@lru_cache(maxsize=4096)
def _trigger_text(trigger: Trigger) -> str:
    return json.dumps(trigger.to_json(), separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=4096)
def _trigger_digest(trigger: Trigger) -> str:
    return _digest(_trigger_text(trigger))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
