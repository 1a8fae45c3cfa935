"""The checker: holds what the jobs did against what their triggers ask for. Pure; believes nothing that lockbeat says of itself.

Which slots were due follows from the triggers and the time alone; what ran, from the lines that the jobs wrote. The ledger only
says why something did not run to its end.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lockbeat.jobs import Job, LedgerEntry

Slot = tuple[str, int]
"""A job's name and the slot in ms."""
Cell = Literal["waiting", "fired", "cut", "skipped", "missed"]


@dataclass(frozen=True, slots=True)
class Effect:
    """A line that a job wrote."""

    what: Literal["begin", "end", "cut"]
    job: str
    slot: int
    by: str
    fence: int
    at: float

    @property
    def key(self) -> Slot:
        return self.job, self.slot

    @property
    def late(self) -> float:
        """Seconds after the slot."""
        return self.at - self.slot / 1000


def read_effects(text: str) -> list[Effect]:
    """The lines of the effects file."""
    return [Effect(**json.loads(line)) for line in text.splitlines()]


def expected_slots(jobs: Iterable[Job], after_ms: int, until_ms: int) -> list[Slot]:
    """What is due in (after, until], by the triggers alone."""
    found = []
    for job in jobs:
        slot = job.trigger.next(after_ms)
        while slot is not None and slot <= until_ms:
            found.append((job.name, slot))
            slot = job.trigger.next(slot)
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


@dataclass(slots=True)
class Verdict:
    """What became of the slots that were due."""

    due: int
    fired: list[Effect] = field(default_factory=list)
    """The first begin of each."""
    duplicates: list[Slot] = field(default_factory=list)
    """Begun more than once, due in the window or not."""
    missed: list[Slot] = field(default_factory=list)
    """Neither begun, nor skipped by policy, nor claimed by an instance that died."""
    early: list[Effect] = field(default_factory=list)
    strays: list[Slot] = field(default_factory=list)
    """Begun, and no slot of the job."""
    skipped: dict[Slot, str] = field(default_factory=dict)
    cut: dict[Slot, str] = field(default_factory=dict)
    """Begun, and not ended before its lease was lost; or claimed and not begun. By whom."""
    unexplained: list[Slot] = field(default_factory=list)
    """Cut short, and the ledger does not say so."""
    refused: list[Effect] = field(default_factory=list)
    """Ends written after another instance had begun the job anew. By their fence a resource can tell, as this one does."""

    @property
    def sound(self) -> bool:
        return not (self.duplicates or self.missed or self.early or self.strays or self.unexplained)

    @property
    def latest(self) -> Effect | None:
        """The one that was begun the latest after its slot."""
        return max(self.fired, key=lambda effect: effect.late, default=None)


def judge(jobs: Mapping[str, Job], due: Iterable[Slot], effects: Iterable[Effect], ledger: Mapping[Slot, LedgerEntry]) -> Verdict:
    """Hold what happened against what was due, when all is over."""
    due = list(due)
    verdict = Verdict(len(due))
    begins: dict[Slot, list[Effect]] = defaultdict(list)
    ended: set[Slot] = set()
    newest: dict[str, int] = {}
    for effect in effects:
        if effect.what == "begin":
            begins[effect.key].append(effect)
        elif effect.what == "end":
            if effect.fence < newest.get(effect.job, 0) and jobs[effect.job].overlap == "skip":
                verdict.refused.append(effect)
            else:
                ended.add(effect.key)
        newest[effect.job] = max(newest.get(effect.job, 0), effect.fence)
    for key, found in begins.items():
        job = jobs.get(key[0])
        if job is None or job.trigger.prev(key[1]) != key[1]:
            verdict.strays.append(key)
        if len(found) > 1:
            verdict.duplicates.append(key)
        verdict.early += [effect for effect in found if effect.late < 0]
    for key in due:
        entry = ledger.get(key)
        state = entry.state if entry else None
        reason = (entry.reason if entry else None) or ""
        if key in begins:
            verdict.fired.append(begins[key][0])
            if key not in ended or state in ("lost", "failed"):
                verdict.cut[key] = begins[key][0].by
                if state not in ("lost", "failed"):
                    verdict.unexplained.append(key)
        elif state == "skipped":
            verdict.skipped[key] = reason
        elif state == "lost":
            verdict.cut[key] = "claimed, not begun"
        else:
            verdict.missed.append(key)
    return verdict
