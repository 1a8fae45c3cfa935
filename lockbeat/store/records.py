"""The lines that scripts keep in hashes, taken apart: the Python half of `_lib/record`, `_lib/lease` and `_lib/schedule`.

What can't be read raises ValueError; the caller, who knows key and field, makes it Unreadable.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from lockbeat.store import reasons
from lockbeat.triggers.rules import UNKNOWN

How = Literal["running", "done", "failed", "lost", "cut", "cancelled"]
TaskState = Literal["waiting", "running", "done", "dead", "cancelled"]
STATES = ("waiting", "running", "stopping", "done", "dead", "cancelled", "skipped", "missed", "anchored")
"""As records have them: `stopping` is cancelled, but its body has yet to stop; the last three are of slots only."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a task. Times: seconds since the Unix epoch, by the server's clock."""

    number: int
    """1 for the first. A task whose attempts are counted anew (`redrive`) begins at 1 again."""
    owner: str
    """Who made it."""
    fence: int
    started_at: float
    ended_at: float | None
    """None while it runs."""
    how: How
    """running; or how it ended. lost: its lease expired; cut: a shutdown cut it short."""
    error: str | None = None
    """Why it ended so; failed: the first 500 bytes of its error."""

    @classmethod
    def of(cls, text: bytes) -> Attempt:
        """From "N FENCE BEGAN ENDED HOW OWNER" and, after a byte 253, an error or (lost, cut, cancelled) a CODE and DETAIL."""
        head, _, told = text.partition(b"\xfd")
        number, fence, began, ended, how, owner = head.decode().split(" ", 5)
        if how != "-" and how not in get_args(How):
            raise ValueError(how)
        error = told.decode(errors="replace")
        return cls(
            int(number),
            owner,
            int(fence),
            int(began) / 1000,
            seconds_of(ended),
            "running" if how == "-" else how,  # type: ignore[arg-type]
            (error if how == "failed" else reasons.sentence(*error.split(" ", 1))) or None,
        )


@dataclass(frozen=True, slots=True)
class Retried:
    """That somebody had a task tried again which had ended: the latest time."""

    by: str | None
    """Who; None: they did not say."""
    at: float
    """Seconds since the Unix epoch, by the server's clock."""
    code: str = ""
    """Why it had ended, see `reasons`; empty: its last attempt failed."""
    detail: str = ""
    """What that reason names."""

    @classmethod
    def of(cls, text: str) -> Retried:
        """From "AT BY", a \x1d, CODE and DETAIL."""
        head, _, was = text.partition("\x1d")
        at, _, by = head.partition(" ")
        code, _, detail = was.partition(" ")
        return cls(by or None, int(at) / 1000, code, detail)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task, as the hash `task` has it; the task of a slot is also what the ledger says of that slot. Times: ms, 0: none."""

    state: str
    """One of STATES."""
    attempts: int
    """Begun so far."""
    max_attempts: int
    spawned_ms: int
    due_ms: int
    until_ms: int
    """Cancelled then, if it has not begun (ended) by then."""
    began_ms: int
    ended_ms: int
    code: str
    """Why it stands so, see `reasons`; empty: nothing needs saying."""
    detail: str
    """What the reason's sentence names."""
    made: tuple[Attempt, ...] = ()
    """The last ten attempts, the oldest first."""
    policies: dict[str, Any] = field(default_factory=dict)
    """Its name, queue and policies; empty: a slot's that has ended, and can't be tried again."""
    fire_ms: int = 0
    """Of a slot: when it was to be fired; 0: with its slot."""
    turn_ms: int = 0
    """When the one before it in line had ended; 0: it waited for none, or waits still."""
    forget_ms: int = 0
    """When the ledger forgets it; 0: when there are too many."""
    backfill: tuple[str, str] | None = None
    """Of a slot that a backfill fired: who began that, and why. None: it was fired when it came due."""
    retried: Retried | None = None
    """Who had it tried again; None: nobody."""
    fired_by: str = ""
    """Who fired a slot that was cancelled; empty: `detail` says it, or it is not kept."""

    @classmethod
    def of(cls, text: bytes) -> TaskRecord:
        """From HEAD, ATTEMPTS and JSON, between them a byte 255."""
        head, attempts, policies = text.split(b"\xff")
        state, begun, most, spawned, due, _seq, until, began, ended, code, detail = head.decode().split(" ", 10)
        detail, fire, turn, forget, backfill = _times(detail)
        again = _AGAIN.search(detail) if "\x1d" in detail else None
        detail, _, fired_by = (detail if again is None else detail[: again.start()]).partition("\x1c")
        if state not in STATES or policies[:1] not in (b"", b"{"):
            raise ValueError(text)
        return cls(
            state,
            int(begun),
            int(most),
            int(spawned),
            int(due),
            int(until),
            int(began),
            int(ended),
            "" if code == "-" else code,
            detail,
            tuple(map(Attempt.of, attempts.split(b"\xfe"))) if attempts else (),
            json.loads(policies or "{}"),
            fire,
            turn,
            forget,
            backfill,
            None if again is None else Retried.of(again[1]),
            fired_by,
        )

    @property
    def last(self) -> Attempt | None:
        return self.made[-1] if self.made else None

    @property
    def slot_state(self) -> str:
        """The state as the ledger calls it, see `LedgerEntry.state`."""
        return as_slot(self.state, self.made[-1].how if self.made else "")

    @property
    def task_state(self) -> TaskState:
        """The state as tasks have it: what never ran is cancelled."""
        return self.state if self.state in get_args(TaskState) else "cancelled"  # type: ignore[return-value]


def as_slot(state: str, how: str) -> str:
    """The state of a task as the ledger calls it. how: how its last attempt ended; empty: it has none. Raises ValueError."""
    if state not in STATES:
        raise ValueError(state)
    if state == "waiting":
        return "retrying" if how in ("failed", "lost", "cut", "cancelled") else "fired"
    if state == "dead":
        return "lost" if how == "lost" else "failed"
    return {"running": "fired", "stopping": "cancelled"}.get(state, state)


_AGAIN = re.compile(r"\x1d(\d+ [^\x1d]*\x1d[^\x1d]*)\Z")
_TIMES = re.compile(r"(?:\x1e([^\x1e\x1f]*)\x1e([^\x1e\x1f]*))?\x1f(\d+) (\d+) (\d+)\Z")


def _times(detail: str) -> tuple[str, int, int, int, tuple[str, str] | None]:
    """DETAIL, and what may stand behind it of a slot: its times, and which backfill has fired it."""
    found = _TIMES.search(detail) if "\x1f" in detail else None
    if found is None:
        return detail, 0, 0, 0, None
    by, why, fire, turn, forget = found.groups()
    return detail[: found.start()], int(fire), int(turn), int(forget), None if by is None else (by, why)


class LeaseLine(NamedTuple):
    """A lease as its hash has it; when it expires stands in the sorted set beside it."""

    fence: int
    ttl_ms: int
    calls: str
    """The ids of the calls by which its owner took it."""
    note: str
    """Of the attempt of a job its slot, in ms; empty: a lock."""
    owner: str

    @classmethod
    def of(cls, text: bytes) -> LeaseLine:
        fence, ttl, calls, note, owner = text.decode().split(" ", 4)
        return cls(int(fence), int(ttl), calls, "" if note == "-" else note, owner)


NEVER_MS = 253_402_300_800_000
"""When a paused job's slot is due, and one that has no slots: the year 10000."""


class SlotLine(NamedTuple):
    """Where a job stands, as `job:slot` has it."""

    slot_ms: int
    """Its next slot; -1: it has ended."""
    due_ms: int
    rev: str
    rules: str
    """The version of the time zones' rules by which the slot was reckoned."""

    @property
    def may_be_paused(self) -> bool:
        """Whether its job is paused, or has no slots: then `job:paused` says so."""
        return self.due_ms == NEVER_MS

    @classmethod
    def of(cls, text: str) -> SlotLine:
        slot, due, rev, *rules = text.split(" ")
        return cls(int(slot), int(due), rev, rules[0] if rules else UNKNOWN)

    def __str__(self) -> str:
        return f"{self.slot_ms} {self.due_ms} {self.rev} {self.rules}"


class Retirement(NamedTuple):
    """Of a retired job, as `job:slot` has it behind where it stands."""

    slot_ms: int
    """The first slot that was not fired; -1: it had none."""
    at_ms: int

    @classmethod
    def of(cls, text: str) -> Retirement | None:
        """From "SLOT DUE REV RULES retired SLOT AT"; None: it is not retired. Raises ValueError."""
        _, retired, told = text.partition(" retired ")
        return cls(*map(int, told.split(" "))) if retired else None


class JobLine(NamedTuple):
    """A job's definition, as the hash `job` has it."""

    rev: str
    definition: str
    """JSON."""

    @classmethod
    def of(cls, text: str) -> JobLine:
        rev, _, definition = text.partition(" ")
        return cls(rev, definition)

    def __str__(self) -> str:
        return f"{self.rev} {self.definition}"


class ChangeLine(NamedTuple):
    """What somebody did to a job, as `job:changes` has it; in `job:paused`: what paused it."""

    what: str
    at_ms: int
    until_ms: int
    """When the pause ends by itself; 0: it does not."""
    by: str
    why: str
    before: str = ""
    """put: the trigger that the job had, as JSON; empty: it kept it, or that was not written down."""

    @classmethod
    def of(cls, text: str) -> ChangeLine:
        """From "WHAT AT UNTIL ", BY and WHY, between them a byte 254, read as latin-1."""
        head, by, why = text.split("\xfe")
        what, at, ends, _ = head.split(" ")
        why, _, before = why.partition("\x1e") if what == "put" else (why, "", "")
        return cls(what, int(at), int(ends), by.encode("latin-1").decode(), why.encode("latin-1").decode(), before)


class BackfillLine(NamedTuple):
    """A job's backfill, as the hash `backfill` has it; see `_lib/backfill`."""

    id: str
    state: str
    from_ms: int
    to_ms: int
    at_ms: int
    """Its slots before this were looked at."""
    next_us: int
    every_us: int
    unknown: int
    since_ms: int
    past_ms: int
    began_ms: int
    ended_ms: int
    total: int
    fired: int
    done: int
    failed: int
    cancelled: int
    missed: int
    known: int
    excluded: int
    left: int
    row: int
    by: str
    why: str
    running: int
    """How many were fired and are not counted yet."""

    @classmethod
    def of(cls, text: bytes) -> BackfillLine:
        """From its numbers, BY, WHY and its open slots, between them a byte 254. Raises ValueError."""
        head, by, why, running = text.split(b"\xfe")
        name, state, *numbers = head.decode().split()
        said: list[Any] = [name, state, *map(int, numbers), by.decode(), why.decode(), len(running.split())]
        if len(said) != len(cls._fields):
            raise ValueError(text)
        return cls(*said)


class JobCounts(NamedTuple):
    """How often what became of a job's slots, since it was declared. They only grow, also where one is tried again."""

    fired: int = 0
    done: int = 0
    failed: int = 0
    lost: int = 0
    skipped: int = 0
    missed: int = 0
    cancelled: int = 0

    @classmethod
    def of(cls, text: str) -> JobCounts:
        """From seven numbers; empty: nothing has come due."""
        return cls(*map(int, text.split(" "))) if text else cls()


def seconds_of(ms: str | int) -> float | None:
    """Milliseconds as seconds; 0: None."""
    return int(ms) / 1000 or None
