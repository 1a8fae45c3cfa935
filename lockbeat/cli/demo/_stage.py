"""What the demo knows at a moment; the displays read it and the story writes it."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from lockbeat.cli.demo import jobs
from lockbeat.cli.demo._cast import Member
from lockbeat.cli.demo._check import Cell, Effect, Slot, Verdict, expected_slots
from lockbeat.jobs import LedgerEntry
from lockbeat.leases.lease import Lease


@dataclass(slots=True)
class Event:
    """Something that happened, or was done, to an instance."""

    at: float
    text: str
    style: str = ""


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
    location: str
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
        """In the order of their declaration, which is that of the rows."""
        return list(jobs.beat.declared)

    def tell(self, text: str, style: str = "") -> None:
        self.events.append(Event(time.time(), text, style))

    def begin(self, at: int) -> None:
        """Count from now on, for `seconds`."""
        self.t0_ms, self.t1_ms = at * 1000, at * 1000 + round(self.seconds * 1000)
        self.schedule = expected_slots(jobs.beat.declared.values(), self.t0_ms, self.t1_ms)

    def due(self, until_ms: int) -> list[Slot]:
        """The slots that are due from the start to `until_ms`."""
        return self.schedule[: bisect_right(self.schedule, until_ms, key=lambda slot: slot[1])]

    def cell(self, key: Slot, now_ms: float) -> Cell:
        """What became of a slot, as far as is known."""
        entry = self.ledger.get(key)
        state = entry.state if entry else None
        if key in self.cut or state in ("lost", "failed"):
            return "cut"
        if key in self.begins:
            return "fired"
        if state == "skipped":
            return "skipped"
        return "missed" if state == "missed" or now_ms > key[1] + 5000 else "waiting"

    def counts(self, now_ms: float) -> Counter[str]:
        """Slots by what became of them; due, and begun twice."""
        due = self.due(int(now_ms))
        found = Counter[str](self.cell(key, now_ms) for key in due)
        found["due"] = len(due)
        begun = Counter(effect.key for effect in self.effects if effect.what == "begin")
        found["duplicates"] = sum(1 for times in begun.values() if times > 1)
        return found

    def shares(self) -> Counter[str]:
        """How many slots each instance began."""
        return Counter(effect.by for key, effect in self.begins.items() if self.t0_ms < key[1] <= self.t1_ms)


def told(stage: Stage, verdict: Verdict) -> list[tuple[str, str, str]]:
    """The summary: what, how much, and how it came; shared by both displays."""
    shares = stage.shares()
    rows = [
        ("slots due", str(verdict.due), f"in {stage.seconds:g} s, by the triggers alone"),
        ("fired", str(len(verdict.fired)), ", ".join(f"{member.name} {shares[member.name]}" for member in stage.members)),
    ]
    if verdict.skipped:
        rows.append(("skipped", str(len(verdict.skipped)), f"overlap skip: the {jobs.SLOW} before had not ended"))
    rows.append(("duplicates", str(len(verdict.duplicates)), _listed(verdict.duplicates) or "no slot was begun twice"))
    rows.append(("missed", str(len(verdict.missed)), _listed(verdict.missed) or "none vanished"))
    if verdict.cut:
        where = ", ".join(f"{slot_name(key)} on {by}" for key, by in sorted(verdict.cut.items(), key=lambda item: item[0][1]))
        said = "the ledger does not say so" if verdict.unexplained else "the ledger says lost"
        rows.append(("cut short", str(len(verdict.cut)), f"{where}: {said}"))
    for name, found in (("early", [effect.key for effect in verdict.early]), ("no slots", verdict.strays)):
        if found:
            rows.append((name, str(len(found)), _listed(found)))
    if verdict.refused:
        late = ", ".join(f"{slot_name(effect.key)} by {effect.by}" for effect in verdict.refused)
        rows.append(("refused", str(len(verdict.refused)), f"written after the lease was lost, so with too old a fence: {late}"))
    if verdict.latest is not None:
        lates = sorted(effect.late for effect in verdict.fired)
        latest = verdict.latest
        longest = f"median; longest {_ms(latest.late)} ({slot_name(latest.key)} by {latest.by})"
        rows.append(("lateness", _ms(lates[len(lates) // 2]), longest))
    for blow in stage.blows:
        after = [effect for effect in verdict.fired if effect.slot > blow.at * 1000]
        first = [effect for effect in after if effect.slot == after[0].slot] if after else []
        worst = _ms(max(effect.late for effect in first)) if first else "?"
        over = ""
        if blow.taken_over is not None:
            gap = blow.taken_over.at - blow.at
            over = f"; {jobs.SLOW} ran again, on {blow.taken_over.by}, after {gap:.1f} s (lease {jobs.LEASE} s)"
        rows.append((f"{blow.verb} {blow.member.name}", worst, f"how late the slots due next were fired{over}"))
    if stage.shut_down_took is not None:
        left = ", ".join(stage.left_behind) or "no lock and no instance left in the store"
        rows.append(("shutdown", f"{stage.shut_down_took:.1f} s", left))
    return rows


def slot_name(key: Slot) -> str:
    return f"{key[0]} {hms(key[1])}"


def hms(ms: float) -> str:
    """A slot's time of day, as the instances' own clocks show it."""
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000))


def _listed(keys: list[Slot]) -> str:
    return ", ".join(slot_name(key) for key in keys[:4]) + (", ..." if len(keys) > 4 else "")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
