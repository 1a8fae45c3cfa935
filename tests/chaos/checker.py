"""Judges a run by its effects and the ledger. Knows nothing of lockbeat but what it promises."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

EARLY_MS = 2.0
"""Two readings of one machine's clock may differ by this."""
ENDS = {"done", "failed", "lost", "skipped", "missed"}
REASONED = {"skipped", "missed"}


class Exit(NamedTuple):
    """How a process ended."""

    code: int
    killed: bool
    log: str
    """The end of it."""
    took: float | None = None
    """Seconds from SIGTERM."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A body began or ended."""

    event: str
    job: str
    slot: int
    attempt: int
    fence: int
    at: float
    instance: str
    pid: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of a slot, or of all from it to `last`."""

    job: str
    slot: int
    state: str
    last: int
    reason: str = ""


class Pause(NamedTuple):
    """A time in which no slot of a job may be fired: it was paused before, and resumed after it. Ms since the epoch."""

    job: str
    since: float
    until: float
    skipped: bool = True
    """Whether its slots were skipped when it was resumed; else one of them may have been fired then."""


class Stretch(NamedTuple):
    """A time whose missed slots were backfilled. Ms since the epoch."""

    job: str
    since: float
    until: float

    def covers(self, job: str, slot: float) -> bool:
        return job == self.job and self.since <= slot < self.until


@dataclass
class Evidence:
    """All that is known of a run after its end."""

    since_ms: float
    until_ms: float
    jobs: dict[str, int]
    """Period in ms, anchored at the epoch."""
    effects: list[Effect]
    ledger: list[Entry]
    exits: dict[str, Exit] = field(default_factory=dict)
    leases_left: list[str] = field(default_factory=list)
    emptied: bool = False
    """The store was emptied: a slot may be `fired` for ever in what was taken down before."""
    pauses: list[Pause] = field(default_factory=list)
    backfills: list[Stretch] = field(default_factory=list)


@dataclass
class Verdict:
    """What was found; a run is good when `problems` is empty."""

    expected: int = 0
    ran: int = 0
    accounted: dict[str, int] = field(default_factory=dict)
    """Slots that did not run, by the ledger's word for why."""
    duplicates: int = 0
    early: int = 0
    missed: int = 0
    """Slots that are neither among the effects nor in the ledger."""
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    worst_ms: float = math.nan
    problems: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """One line of a table."""
        why = " ".join(f"{word}={count}" for word, count in sorted(self.accounted.items()))
        return (
            f"{name:<22} slots={self.expected} ran={self.ran} dup={self.duplicates} early={self.early} vanished={self.missed} "
            f"late p50={self.p50_ms:.0f} p99={self.p99_ms:.0f} max={self.worst_ms:.0f} ms  {why}"
        )


def judge(evidence: Evidence, *, p99_ms: float | None = None, grace: float = 3.0) -> Verdict:
    """Hold a run against the promises. `p99_ms`: how late the 99th of 100 first attempts may be."""
    verdict = Verdict()
    _once_and_in_time(evidence, verdict)
    _none_vanishes(evidence, verdict)
    _none_in_a_pause(evidence, verdict)
    _all_backfilled(evidence, verdict)
    verdict.problems += [f"no reason: {entry}" for entry in evidence.ledger if entry.state in REASONED and not entry.reason]
    _fences_grow(evidence, verdict)
    late = sorted(effect.at - effect.slot for effect in evidence.effects if effect.event == "start" and effect.attempt == 1)
    if late:
        verdict.p50_ms, verdict.p99_ms, verdict.worst_ms = late[len(late) // 2], late[int(len(late) * 0.99)], late[-1]
    if p99_ms is not None and not verdict.p99_ms <= p99_ms:
        verdict.problems.append(f"the 99th percentile of lateness is {verdict.p99_ms:.0f} ms, more than {p99_ms:.0f}")
    verdict.problems += ended_badly(evidence.exits, grace + 4)
    verdict.problems += [f"left behind: {lease}" for lease in evidence.leases_left]
    return verdict


def ended_badly(exits: Mapping[str, Exit], within: float = math.inf) -> Iterator[str]:
    """Which processes did not end by themselves, in time and in silence."""
    for name, (code, killed, log, took) in exits.items():
        if not killed and code != 0:
            yield f"{name} exited with {code}: {log[-2000:]}"
        if took is not None and took > within:
            yield f"{name} took {took:.1f} s to end"
        if (at := log.find("Traceback")) >= 0:
            yield f"{name} shows a traceback: {log[max(at - 200, 0) : at + 2000]}"


def _once_and_in_time(evidence: Evidence, verdict: Verdict) -> None:
    starts: dict[tuple[str, int], list[Effect]] = defaultdict(list)
    for effect in evidence.effects:
        if effect.event == "start":
            starts[effect.job, effect.slot].append(effect)
            if effect.at < effect.slot - EARLY_MS:
                verdict.early += 1
                verdict.problems.append(f"{effect.slot - effect.at:.0f} ms early: {effect}")
    for (job, _), several in starts.items():
        # A job that may be retried runs again as another attempt; any other never.
        attempts = {effect.attempt for effect in several} if job == "retried" else {several[0].attempt}
        if len(attempts) != len(several):
            verdict.duplicates += 1
            verdict.problems.append(f"twice: {several}")


def _none_vanishes(evidence: Evidence, verdict: Verdict) -> None:
    ran = {(effect.job, effect.slot) for effect in evidence.effects if effect.event == "start"}
    covered: dict[str, list[Entry]] = defaultdict(list)
    for known in evidence.ledger:
        covered[known.job].append(known)
    for job, period in evidence.jobs.items():
        slot = math.floor(evidence.since_ms / period) * period + period
        while slot <= evidence.until_ms:
            verdict.expected += 1
            entry: Entry | None = next((one for one in covered[job] if one.slot <= slot <= one.last and one.state in ENDS), None)
            if entry is None and evidence.emptied:
                entry = next((one for one in covered[job] if one.slot == slot), None)
            if (job, slot) in ran:
                verdict.ran += 1
            elif entry is not None and entry.state != "done":
                verdict.accounted[entry.state] = verdict.accounted.get(entry.state, 0) + 1
            else:
                verdict.missed += 1
                said = next((one for one in covered[job] if one.slot == slot), None)
                verdict.problems.append(f"vanished: {job}@{slot}, of which the ledger says {said}")
            slot += period


def _none_in_a_pause(evidence: Evidence, verdict: Verdict) -> None:
    skipped = [entry for entry in evidence.ledger if entry.reason == "paused"]
    for pause in evidence.pauses:
        for effect in evidence.effects:
            its = effect.event == "start" and effect.job == pause.job and pause.since < effect.slot < pause.until
            if its and (pause.skipped or effect.at < pause.until):
                verdict.problems.append(f"in a pause: {effect}, {pause}")
        period = evidence.jobs[pause.job]
        slot = math.floor(pause.since / period) * period + period
        while pause.skipped and slot < pause.until:
            if not any(entry.job == pause.job and entry.slot <= slot <= entry.last for entry in skipped):
                verdict.problems.append(f"not said to be paused: {pause.job}@{slot}, {pause}")
            slot += period


def _all_backfilled(evidence: Evidence, verdict: Verdict) -> None:
    begun = {(effect.job, effect.slot) for effect in evidence.effects if effect.event == "start"}
    # Whoever fired it may have been killed before it was begun.
    begun |= {(entry.job, entry.slot) for entry in evidence.ledger if entry.state == "lost"}
    for stretch in evidence.backfills:
        period = evidence.jobs[stretch.job]
        slot = math.ceil(stretch.since / period) * period
        while slot < stretch.until:
            if (stretch.job, slot) not in begun:
                verdict.problems.append(f"not backfilled: {stretch.job}@{slot}, {stretch}")
            slot += period


def _fences_grow(evidence: Evidence, verdict: Verdict) -> None:
    last: dict[str, Effect] = {}
    starts = [effect for effect in evidence.effects if effect.event == "start"]
    # What is backfilled runs after later slots.
    starts = [one for one in starts if not any(stretch.covers(one.job, one.slot) for stretch in evidence.backfills)]
    for effect in sorted(starts, key=lambda one: (one.job, one.slot, one.attempt)):
        before = last.get(effect.job)
        # A retry of an older slot may come after the next slot where overlap allows it; none of these jobs does both.
        if before is not None and effect.fence <= before.fence:
            verdict.problems.append(f"fences go back: {before} then {effect}")
        last[effect.job] = effect
