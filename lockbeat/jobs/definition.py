"""A job: a periodic definition as data, and as the store has it. Pure: no store, no clock."""

from __future__ import annotations

import difflib
import hashlib
import json
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.jobs.options import (
    CATCHUPS,
    CODE,
    LONGEST_DESCRIPTION,
    LONGEST_KEPT_MS,
    MOST_FAILURES,
    MOST_PARAMS,
    MOST_WAIT,
    OF_SLOTS,
    OVERLAPS,
    Catchup,
    JobOptions,
    Overlap,
    check_origin,
    checked_exclude,
    checked_tags,
)
from lockbeat.retry import MOST_ATTEMPTS, Exponential, Fixed, Retry, retry_from_json
from lockbeat.triggers import ByHand, Called, Trigger, between, trigger_from_json
from lockbeat.values.checks import one_of, whole
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump

READS = 4
"""The version of definitions that is read here. One that begins with a higher `"needs"` holds what decides the job's slots and is
unknown here. Any other field that is unknown decides none, and is carried along.
2 has `gap` and `fold`, `AnyOf` and `Between`, `limit`, `pause_after`, `exclude`, and of overlap and catch-up what 1 lacks.
3 has `function` and `params`: whoever fires such a job has to say what is to run. And `Called`.
4 has `Solar`, and `days` of `Cron`."""
AS_EVER = {
    "overlap": ("skip", "allow"),
    "catchup": ("latest", "skip"),
    "limit": (None,),
    "pause_after": (None,),
    "exclude": ((),),
}
"""What versions that read 1 have of these options."""
ADDED = ("keep_for_ms", "limit", "buffer", "cap", "pause_after", "description", "tags", "exclude")
"""Options that the first versions do not have."""
TRIGGERED_MS = 7 * 86_400_000
"""For how long it is known what became of a run that was triggered."""
SKIP_WINDOW = 10.0
"""Seconds that a slot may be late under catch-up `skip` before it counts as missed: a take-over is no outage."""


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
    """When a slot comes due while the job's last task has not ended: `skip` it (the ledger says so), `allow` both, let one
    (`buffer_one`) or several (`buffer_all`) wait for its end, or cancel what runs (`cancel_other`)."""
    catchup: Catchup = "latest"
    """After an outage: fire the `latest` slot that came due, `skip` it if it is more than `window` late, or fire `all`."""
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
    keep_for_ms: int | None = None
    """None of them for longer than this, from when it was fired, skipped or found missed; None: for ever."""
    limit: int | None = None
    """After how many slots that were fired the job has ended; None: never."""
    buffer: int = 100
    """How many slots may wait under overlap `buffer_all`; what comes due beyond is skipped."""
    cap: int = 100
    """How many slots wait under catch-up `all`; the oldest beyond are missed."""
    pause_after: int | None = None
    """After how many failures in a row the job is paused, until somebody resumes it; None: never."""
    description: str = ""
    """What it is for, for people."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""
    exclude: tuple[str, ...] = ()
    """Calendars: a slot on a day of any of them, in the zone of the trigger, is not fired."""
    function: str = ""
    """Which function runs; empty: the one with the job's name."""
    params: Any = None
    """What its `run.params` is: JSON, up to 16 KiB."""
    origin: str | None = field(default=None, compare=False)
    """Who declared it: "code" (a `Beat`), "api", or a word of whoever did. None: a version that did not say so; or nobody yet.
    It says nothing of what the job does, so it is no part of `rev`."""
    version: str | None = field(default=None, compare=False)
    """Of origin "code": which version of the code declared it, by id; None: nobody said it. No part of `rev` either."""
    carried: str = field(default="", repr=False)
    """What a newer version wrote beside the fields above, as members of a JSON object: not read, and written back as it is."""

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("queue", self.queue)
        if not isinstance(self.trigger, Trigger):
            raise InvalidType("trigger", f"must be a Cron, Every, At or AnyOf, not {type(self.trigger).__name__}")
        object.__setattr__(self, "trigger", self.trigger.of_job(self.name))
        object.__setattr__(self, "tags", checked_tags(self.tags))
        object.__setattr__(self, "exclude", checked_exclude(self.exclude))
        object.__setattr__(self, "function", check_name("function", self.function) if self.function != "" else self.name)
        if self.origin is not None:
            check_origin("origin", self.origin)
        if self.params is not None:
            object.__setattr__(self, "params", json.loads(self.params_text))  # a copy, which nobody changes
        if not isinstance(self.description, str):
            raise InvalidType("description", f"must be a str, not {type(self.description).__name__}")
        if len(self.description) > LONGEST_DESCRIPTION:
            raise InvalidArgument("description", f"longer than {LONGEST_DESCRIPTION} characters")
        one_of("overlap", self.overlap, OVERLAPS)
        one_of("catchup", self.catchup, CATCHUPS)
        if self.retry is not None and not isinstance(self.retry, (Fixed, Exponential)):
            raise InvalidType("retry", f"must be Fixed or Exponential, not {type(self.retry).__name__}")
        whole("max_attempts", self.max_attempts, 1, MOST_ATTEMPTS)
        whole("priority", self.priority, -49, 49)
        whole("keep", self.keep, 1, 100_000)
        if self.keep_for_ms is not None:
            whole("keep_for_ms", self.keep_for_ms, 1, LONGEST_KEPT_MS)
            if isinstance(self.trigger, Called):
                raise InvalidArgument("keep_for", "is for slots that instances fire: of others the ledger says which have run")
        whole("buffer", self.buffer, 1, MOST_WAIT)
        whole("cap", self.cap, 1, MOST_WAIT)
        if self.buffer != 100 and self.overlap != "buffer_all":
            raise InvalidArgument("buffer", f"is for overlap 'buffer_all', not {self.overlap!r}")
        if self.cap != 100 and self.catchup != "all":
            raise InvalidArgument("cap", f"is for catch-up 'all', not {self.catchup!r}")
        if self.limit is not None:
            whole("limit", self.limit, 1, 1_000_000_000)
        if self.pause_after is not None:
            whole("pause_after", self.pause_after, 1, MOST_FAILURES)
            if self.keep < self.pause_after:
                raise InvalidArgument("pause_after", f"needs a ledger of as many entries, and keep is {self.keep}")

    @classmethod
    def declare(
        cls,
        name: str,
        trigger: Trigger,
        *,
        window: Seconds | None = None,
        jitter: Seconds = 0,
        timeout: Seconds | None = None,
        keep_for: Seconds | None = None,
        lease: Seconds = 5,
        start: datetime | None = None,
        end: datetime | None = None,
        function: str | None = None,
        origin: str | None = None,
        **rest: Any,
    ) -> Job:
        """A job from durations in seconds (or timedelta).

        start, end: aware datetimes; its slots are those of the trigger from `start` on and before `end`.
        function, origin: see the fields; None: the job's name, and nobody yet.
        """
        if callable(function):
            raise InvalidType("function", "must be the name of a function, a str, not the function itself")
        known = JobOptions.__annotations__
        for unknown in sorted(rest.keys() - known.keys()):
            near = difflib.get_close_matches(unknown, known, 1)
            raise InvalidArgument(unknown, f"no such option of a job{f'; did you mean {near[0]!r}?' if near else ''}")
        if isinstance(trigger, ByHand):
            given = {"window": window, "jitter": jitter, "start": start, "end": end} | rest
            for option in OF_SLOTS:
                if given.get(option):
                    raise InvalidArgument(option, "is for slots, and a job without a trigger has none")
        if start is not None or end is not None:
            trigger = between(trigger.of_job(name), start, end)
        return cls(
            name,
            trigger,
            window_ms=None if window is None else milliseconds("window", window),
            jitter_ms=milliseconds("jitter", jitter, least=0),
            timeout_ms=None if timeout is None else milliseconds("timeout", timeout),
            keep_for_ms=None if keep_for is None else milliseconds("keep_for", keep_for, least=1),
            lease_ms=milliseconds("lease", lease, least=0.1),
            function="" if function is None else check_name("function", function),
            origin=origin,
            **rest,
        )

    def with_origin(self, origin: str) -> Job:
        """The same, declared by `origin` unless it says another."""
        if self.origin is not None:
            return self
        same = copy(self)  # what was made of its definition is true of it as well
        object.__setattr__(same, "origin", check_origin("origin", origin))
        return same

    @cached_property
    def params_text(self) -> str:
        """Its params as JSON, the same for equal ones; empty: none."""
        if self.params is None:
            return ""
        text = json.dumps(json.loads(dump("params", self.params)), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        if (size := len(text.encode())) > MOST_PARAMS:
            raise InvalidArgument("params", f"must be at most {MOST_PARAMS >> 10} KiB of JSON, not {size} bytes")
        return text

    @property
    def fires_within_ms(self) -> int:
        """How long after its slot a job may be fired, what it is held back by included; -1: however late."""
        if self.window_ms is not None:
            return self.window_ms + self.jitter_ms
        return round(SKIP_WINDOW * 1000) + self.jitter_ms if self.catchup == "skip" else -1

    @cached_property
    def definition(self) -> str:
        """The job as JSON, without its origin. Params are text in it: a script that looks for a word finds none of theirs."""
        (needs, options), carried = _options_text(self.retry, *_options(self)), f",{self.carried}" if self.carried else ""
        needs = max(needs, self.trigger.needs)
        if self.function != self.name:
            needs, options = 3, f'{options},"function":{json.dumps(self.function)}'
        if self.params is not None:
            needs, options = 3, f'{options},"params":{json.dumps(self.params_text)}'
        said = f'"needs":{needs},' if needs > 1 else ""
        return f'{{{said}"trigger":{_trigger_text(self.trigger)},{options}{carried}}}'

    @property
    def stored(self) -> str:
        """The same with its origin, as the store keeps it: behind what it needs, where `_lib/origin` looks for it."""
        return self.stored_in(self.version)

    def stored_in(self, version: str | None) -> str:
        """The same, declared by this version of a program's code."""
        begins = self._begins
        return f"{begins}{self._says(version)}{self.definition[len(begins) :]}"

    def head_in(self, version: str | None) -> str:
        """What its line in the store begins with then: `REV {`, and who declared it."""
        return f"{self.rev} {self._begins}{self._says(version)}"

    @property
    def _begins(self) -> str:
        text = self.definition
        return text[: text.index(",") + 1] if text.startswith('{"needs"') else "{"

    def _says(self, version: str | None) -> str:
        if not self.origin:
            return ""
        said = f'"origin":"{self.origin}",'
        return f'{said}"version":"{version}",' if version and self.origin == CODE else said

    @cached_property
    def rev(self) -> str:
        """Changes with the definition; the part before the dot only with what decides the slots."""
        limit = "" if self.limit is None else f"l{self.limit}"
        return f"{_trigger_digest(self.trigger)}{self.jitter_ms}{limit}.{_digest(self.definition)}"

    @cached_property
    def record(self) -> str:
        """What each of its tasks carries: `MAX_ATTEMPTS JSON`."""
        record: dict[str, Any] = {
            "name": self.function,
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
        if self.params is not None:
            record["params"] = self.params_text
        return f"{self.max_attempts} {json.dumps(record, separators=(',', ':'))}"

    @cached_property
    def firing(self) -> str:
        """The policies by which it is fired: `OVERLAP WINDOW LIMIT BUFFER CAP KEEP`."""
        cap = self.cap if self.catchup == "all" else 0
        return f"{self.overlap} {self.fires_within_ms} {self.limit or 0} {self.buffer} {cap} {self.keeps}"

    def record_due(self, due_ms: int) -> str:
        """The same, of a task that was to be fired at another time than the store expects."""
        return self.record.replace("{", f'{{"fire_ms":{due_ms},', 1)

    @property
    def keeps(self) -> str:
        """How its ledger keeps, as scripts have it: "COUNT", or "COUNT MS"."""
        return f"{self.keep}" if self.keep_for_ms is None else f"{self.keep} {self.keep_for_ms}"

    def triggered(self, overlap: str | None) -> str:
        """What a run of it carries that was triggered, as `record`. It is no slot's: `of` says whose it is."""
        record = json.loads(self.record.partition(" ")[2])
        record |= {"of": record.pop("job"), "overlap": overlap or self.overlap, "retention_ms": TRIGGERED_MS}
        record.pop("window_ms", None)
        record.pop("params", None)  # it has a payload
        return f"{self.max_attempts} {json.dumps(record, separators=(',', ':'))}"

    @cached_property
    def backfilled(self) -> str:
        """What a slot's task carries that a backfill fires, as `record`: no window, for it is as late as it is."""
        record = json.loads(self.record.partition(" ")[2])
        record.pop("window_ms", None)
        return f"{self.max_attempts} {json.dumps(record | {'backfill': True}, separators=(',', ':'))}"

    @classmethod
    def from_definition(cls, name: str, text: str | bytes) -> Job:
        """The job that `definition` wrote. Raises InvalidArgument for what needs a newer version, and what can't be read."""
        try:
            data: dict[str, Any] = dict(json.loads(text))
            if (needs := int(data.pop("needs", READS))) > READS:
                raise InvalidArgument("definition", f"job {name!r} needs a lockbeat that reads definitions {needs}, not {READS}")
            retry = retry_from_json(told) if (told := data.pop("retry", None)) else None
            trigger = trigger_from_json(data.pop("trigger"))
            function, origin, version = data.pop("function", ""), data.pop("origin", None), data.pop("version", None)
            params = json.loads(said) if (said := data.pop("params", "")) else None
            carried = json.dumps({key: value for key, value in data.items() if key not in _OPTIONS}, separators=(",", ":"))[1:-1]
            options = {key: value for key, value in data.items() if key in _OPTIONS}
            return cls(
                name,
                trigger,
                retry=retry,
                carried=carried,
                function=function,
                params=params,
                origin=origin,
                version=version,
                **options,
            )
        except InvalidArgument:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            raise InvalidArgument("definition", f"job {name!r} can't be read: {problem!r}") from None


_APART = {"name", "trigger", "retry", "function", "params", "origin", "version", "carried"}
_OPTIONS = tuple(sorted({one.name for one in fields(Job)} - _APART))
_options = attrgetter(*_OPTIONS)
_LATER = {one.name: one.default for one in fields(Job) if one.name in ADDED}
# A hundred thousand jobs have a few thousand triggers, and next to all of them the same options.


@lru_cache(maxsize=1024)
def _options_text(retry: Retry | None, *options: object) -> tuple[int, str]:
    """The version of definitions that has these options; and the text of a definition between its trigger and what is carried."""
    data = dict(zip(_OPTIONS, options, strict=True), retry=retry.to_json() if retry else None)
    needs = 1 if all(data[name] in known for name, known in AS_EVER.items()) else 2
    for name, default in _LATER.items():  # where they say nothing, the text is as older versions write it
        if data[name] == default:
            del data[name]
    return needs, json.dumps(data, separators=(",", ":"))[1:-1]


@lru_cache(maxsize=4096)
def _trigger_text(trigger: Trigger) -> str:
    return json.dumps(trigger.to_json(), separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=4096)
def _trigger_digest(trigger: Trigger) -> str:
    return _digest(_trigger_text(trigger))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
