"""What the demo knows at a moment; the display reads it and the story writes it."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lockbeat.cli.demo import jobs
from lockbeat.cli.demo._cast import Member
from lockbeat.cli.demo._check import Cell, Effect, Slot, Verdict, expected_slots
from lockbeat.jobs import LedgerEntry
from lockbeat.leases.lease import Lease


class Event(NamedTuple):
    """Something that happened, or was done, to an instance."""

    at: float
    text: str
    style: str


@dataclass(slots=True)
class Blow:
    """A kill or a freeze, and how the others took it."""

    verb: str
    member: Member
    at: float
    held: bool
    """Whether it held the slow job's lock."""
    taken_over: Effect | None = None
    """When another began the slow job next."""


@dataclass(slots=True)
class Stage:
    """Everything that is shown."""

    members: list[Member]
    seconds: float
    t0_ms: int = 0
    """Slots after this are counted, up to `t1_ms`; 0: not begun."""
    t1_ms: int = 0
    schedule: list[Slot] = field(default_factory=list)
    """What is due between the two, by the triggers alone, in order of time."""
    begins: dict[Slot, Effect] = field(default_factory=dict)
    cut: set[Slot] = field(default_factory=set)
    effects: list[Effect] = field(default_factory=list)
    ledger: dict[Slot, LedgerEntry] = field(default_factory=dict)
    lock: Lease | None = None
    letters: dict[str, str] = field(default_factory=dict)
    """Owner -> the member's letter."""
    events: list[Event] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)
    shut_down_took: float | None = None
    left_behind: list[str] = field(default_factory=list)

    @property
    def job_names(self) -> list[str]:
        """In the order of their declaration, which is that of the columns."""
        return list(jobs.beat.declared)

    def tell(self, text: str, style: str = "") -> None:
        self.events.append(Event(time.time(), text, style))

    def begin(self, at: int) -> None:
        """Count from now on, for `seconds`."""
        self.t0_ms, self.t1_ms = at * 1000, at * 1000 + round(self.seconds * 1000)
        self.schedule = expected_slots(jobs.beat.declared.values(), self.t0_ms, self.t1_ms)

    def due(self, until_ms: float) -> list[Slot]:
        """The slots that are due from the start to `until_ms`."""
        return self.schedule[: bisect_right(self.schedule, until_ms, key=lambda slot: slot[1])]

    def cell(self, key: Slot, now_ms: float) -> Cell:
        """What became of a slot, as far as is known."""
        state = self.ledger[key].state if key in self.ledger else None
        if key in self.cut or state in ("lost", "failed"):
            return "cut"
        if key in self.begins:
            return "fired"
        if state == "skipped":
            return "skipped"
        return "missed" if state == "missed" or now_ms > key[1] + 5000 else "waiting"

    def shares(self) -> Counter[str]:
        """How many slots each instance began."""
        return Counter(effect.by for key, effect in self.begins.items() if self.t0_ms < key[1] <= self.t1_ms)


def told(stage: Stage, verdict: Verdict) -> list[tuple[str, str, str]]:
    """The summary: what, how much, and how it came. Of what went well without being asked for, nothing."""
    shares = stage.shares()
    cut = ", ".join(f"{slot_name(key)} on {by}" for key, by in sorted(verdict.cut.items(), key=lambda item: item[0][1]))
    late = ", ".join(f"{slot_name(effect.key)} by {effect.by}" for effect in verdict.refused)
    strange = {"early": [effect.key for effect in verdict.early], "no slots": verdict.strays}
    rows = [
        ("slots due", str(verdict.due), f"in {stage.seconds:g} s, by the triggers alone"),
        ("fired", str(len(verdict.fired)), ", ".join(f"{member.name} {shares[member.name]}" for member in stage.members)),
        ("skipped", str(len(verdict.skipped)), f"overlap skip: the {jobs.SLOW} before had not ended"),
        ("duplicates", str(len(verdict.duplicates)), _listed(verdict.duplicates) or "no slot was begun twice"),
        ("missed", str(len(verdict.missed)), _listed(verdict.missed) or "none vanished"),
        ("cut short", str(len(verdict.cut)), f"{cut}: the ledger {'does not say so' if verdict.unexplained else 'says lost'}"),
        *((name, str(len(found)), _listed(found)) for name, found in strange.items()),
        ("refused", str(len(verdict.refused)), f"written after the lease was lost, so with too old a fence: {late}"),
    ]
    rows = [row for row in rows if row[1] != "0" or row[0] in ("fired", "duplicates", "missed")]
    if verdict.latest is not None:
        lates = sorted(effect.late for effect in verdict.fired)
        longest = f"{_ms(verdict.latest.late)} ({slot_name(verdict.latest.key)} by {verdict.latest.by})"
        rows.append(("lateness", _ms(lates[len(lates) // 2]), f"median; longest {longest}"))
    for blow in stage.blows:
        after = [effect for effect in verdict.fired if effect.slot > blow.at * 1000]
        worst = max((effect.late for effect in after if effect.slot == after[0].slot), default=None)
        over = ""
        if blow.taken_over is not None:
            gap = blow.taken_over.at - blow.at
            over = f"; {jobs.SLOW} ran again, on {blow.taken_over.by}, after {gap:.1f} s (lease {jobs.LEASE} s)"
        late = "?" if worst is None else _ms(worst)
        rows.append((f"{blow.verb} {blow.member.name}", late, f"how late the slots due next were fired{over}"))
    if stage.shut_down_took is not None:
        left = ", ".join(stage.left_behind) or "no lock and no instance left in the store"
        rows.append(("shutdown", f"{stage.shut_down_took:.1f} s", left))
    return rows


def slot_name(key: Slot) -> str:
    return f"{key[0]} {hms(key[1])}"


def hms(ms: float) -> str:
    """A slot's time of day, as the instances' own clocks show it."""
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000))


def _listed(keys: Iterable[Slot]) -> str:
    names = [slot_name(key) for key in keys]
    return ", ".join([*names[:4], *(["..."] if len(names) > 4 else [])])


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
