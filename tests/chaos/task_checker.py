"""Judges a run of tasks by what their bodies did, what workers were answered, and what the store says and keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.checker import Exit, ended_badly

KEPT = {"format", "shards", "epoch", "fence", "task:stats"}
"""Keys that outlive all tasks; every other one is gone or has a TTL."""
MOST_FIELDS = 16
"""How many fields a key may have that is kept."""
MOST_FLEETING = 100
"""Keys with a TTL: answers for calls that may be repeated, and the instances that were seen last."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a body did, or what the store answered to the report of its outcome."""

    event: str
    """begin, and then one of end, raise, cut (it was cancelled); of the answer: completed, refused, requeued, dead_lettered."""
    task: str
    attempt: int
    fence: int
    at: float
    instance: str


@dataclass(frozen=True, slots=True)
class Given:
    """A task as it was spawned."""

    kind: str
    max_attempts: int
    raises: int = 0
    """It raises in so many attempts, the first ones."""
    fleeting: bool = False
    """Its retention is nothing: it may be gone by the end."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the store says of it in the end."""

    state: str
    attempts: int
    fence: int | None = None
    failure: str | None = None


@dataclass
class Evidence:
    """All that is known of a run after its end."""

    given: dict[str, Given]
    known: dict[str, Known]
    effects: list[Effect]
    stats: dict[str, int]
    """As the store counted."""
    again: list[tuple[str, str, bool]] = field(default_factory=list)
    """Of each key that was spawned twice: the task's id, then and the second time, and whether that made one."""
    excused: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """When instances were killed, or from when to when frozen: what they were at may be lost, or done again."""
    slack: float = 3.0
    """Seconds before that in which an attempt may have begun and not ended, or ended and not been reported."""
    forgotten: bool = False
    """Retentions of nothing were waited for."""
    counts: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """By queue, before the purge: ready, delayed, running, dead."""
    queues: list[str] = field(default_factory=list)
    """That hold anything after the purge."""
    kept: dict[str, int] = field(default_factory=dict)
    """Keys without a TTL after the purge, and how many fields each has."""
    fleeting: int = 0
    """How many keys with a TTL there were then."""
    exits: dict[str, Exit] = field(default_factory=dict)
    kills: int = 0
    seconds: float = 0.0


@dataclass
class Verdict:
    """What was found; a run is good when `problems` is empty."""

    tasks: int = 0
    done: int = 0
    dead: int = 0
    kills: int = 0
    begun: int = 0
    """Bodies that began."""
    lost: int = 0
    """Attempts that nobody reported on: killed before, or between body and report."""
    again: int = 0
    """Bodies that ended and were run again, for their worker died before it could report."""
    refused: int = 0
    """Reports that came too late."""
    duplicates: int = 0
    """Attempts begun twice, tasks completed twice, tasks completed and begun again."""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """One line of figures."""
        return (
            f"{name:<20} tasks={self.tasks} done={self.done} dead={self.dead} kills={self.kills} begun={self.begun} "
            f"lost={self.lost} again={self.again} refused={self.refused} duplicates={self.duplicates} {self.seconds:.1f} s"
        )


def judge(evidence: Evidence) -> Verdict:
    """Hold a run against the promises."""
    verdict = Verdict(tasks=len(evidence.given), kills=evidence.kills, seconds=evidence.seconds)
    by_task: dict[str, list[Effect]] = defaultdict(list)
    for effect in evidence.effects:
        by_task[effect.task].append(effect)
    verdict.problems += [f"never spawned: {task}" for task in by_task if task not in evidence.given]
    for task, given in evidence.given.items():
        known = evidence.known.get(task)
        mine = by_task[task]
        found = [
            *_ended(given, known, evidence),
            *_attempts(given, known, mine),
            *_reports(known, mine),
            *_not_lost(given, mine, evidence),
        ]
        verdict.problems += [f"{problem}: {task} {given} {known} {mine}" for problem in found]
        verdict.duplicates += _duplicates(mine)
    _count(evidence, verdict)
    _idempotent(evidence, verdict)
    _store(evidence, verdict)
    verdict.problems += ended_badly(evidence.exits)
    return verdict


def _of(effects: Iterable[Effect], *events: str) -> list[Effect]:
    return [effect for effect in effects if effect.event in events]


def _ended(given: Given, known: Known | None, evidence: Evidence) -> Iterable[str]:
    """Each task is done; or dead, where its attempts were really used up."""
    if known is None:
        if not given.fleeting:
            yield "vanished"
        return
    if given.fleeting and evidence.forgotten:
        yield "not forgotten after its retention"
    if known.attempts > given.max_attempts:
        yield "more attempts than it may have"
    if known.state == "dead":
        if known.attempts < given.max_attempts:
            yield "dead before its attempts were used up"
        if known.failure != "Lost" and given.raises < given.max_attempts:
            yield "dead, though its last attempt did not raise"
        if known.failure == "Lost" and not evidence.excused:
            yield "lost without anybody's death"
    elif known.state != "done":
        yield "not ended"
    elif known.attempts <= given.raises:
        yield "done by an attempt that raised"
    elif known.attempts > given.raises + 1 and not evidence.excused:
        yield "an attempt was used up, and nobody died"


def _attempts(given: Given, known: Known | None, effects: list[Effect]) -> Iterable[str]:
    """No attempt begins twice, none beyond the last, and fences grow with them."""
    begun = sorted(_of(effects, "begin"), key=lambda effect: (effect.attempt, effect.at))
    for before, after in pairwise(begun):
        if before.attempt == after.attempt:
            yield "an attempt began twice"
        elif before.fence >= after.fence:
            yield "fences do not grow"
    if begun and begun[-1].attempt > given.max_attempts:
        yield "began more often than it may"
    if begun and known is not None and begun[-1].attempt > known.attempts:
        yield "an attempt began that the store does not count"


def _reports(known: Known | None, effects: list[Effect]) -> Iterable[str]:
    """One outcome is accepted, that of the newest attempt, and it is what the store says."""
    begun, ended = _of(effects, "begin"), {effect.fence for effect in _of(effects, "end")}
    newest = max((effect.fence for effect in begun), default=0)
    completed = {effect.fence for effect in _of(effects, "completed")}
    if len(completed) > 1:
        yield "completed twice"
    for fence in completed:
        if fence != newest:
            yield "completed by an attempt that was not the newest"
        if known is not None and (known.state, known.fence) != ("done", fence):
            yield "completed, of which the store knows nothing"
    if known is not None and known.state == "done":
        if known.fence not in ended:
            yield "done by an attempt whose body never ended"
        if known.fence is not None and known.fence < newest:
            yield "begun again after it was done"
        if known.fence in {effect.fence for effect in _of(effects, "refused")}:
            yield "refused, though it made the task done"
    answers: dict[int, set[str]] = defaultdict(set)
    for effect in _of(effects, "completed", "refused", "requeued", "dead_lettered", "cancelled"):
        answers[effect.fence].add(effect.event)
    if any(len(events) > 1 for events in answers.values()):
        yield "one attempt was answered in two ways"


def _not_lost(given: Given, effects: list[Effect], evidence: Evidence) -> Iterable[str]:
    """Only who was killed or frozen leaves an attempt unended, or one that is done again."""

    since: dict[int, float] = {effect.fence: effect.at for effect in _of(effects, "begin")}

    def excused(effect: Effect, slack: float) -> bool:
        """Whether its worker was harmed between the begin of the attempt and `slack` seconds after this."""
        spans = evidence.excused.get(effect.instance, ())
        return any(since.get(effect.fence, effect.at) <= end and effect.at + slack >= start for start, end in spans)

    over = {effect.fence for effect in _of(effects, "end", "raise")}
    for effect in _of(effects, "begin"):
        if effect.fence not in over and not excused(effect, evidence.slack):
            yield "an attempt came to nothing, without its worker's death"
    ends = sorted(_of(effects, "end"), key=lambda effect: effect.fence)
    if not all(excused(effect, evidence.slack) for effect in ends[:-1]):
        yield "done again, without its worker's death"
    if not all(excused(effect, 0) for effect in _of(effects, "refused")):
        yield "refused, without its worker's death"
    if not evidence.excused and given.kind != "doomed" and len(_of(effects, "begin")) != given.raises + 1:
        yield "not run as often as it needs, and nobody died"


def _duplicates(effects: list[Effect]) -> int:
    begun, completed = _of(effects, "begin"), {effect.fence for effect in _of(effects, "completed")}
    twice = len(begun) - len({effect.attempt for effect in begun})
    after = sum(bool(completed) and effect.fence > min(completed) for effect in begun)
    return twice + after + max(len(completed) - 1, 0)


def _count(evidence: Evidence, verdict: Verdict) -> None:
    verdict.done = sum(known.state == "done" for known in evidence.known.values())
    verdict.dead = sum(known.state == "dead" for known in evidence.known.values())
    verdict.begun = len(_of(evidence.effects, "begin"))
    verdict.refused = len(_of(evidence.effects, "refused"))
    ends: dict[str, int] = defaultdict(int)
    for effect in _of(evidence.effects, "end"):
        ends[effect.task] += 1
    verdict.again = sum(count - 1 for count in ends.values())
    # Of those that are gone by now nothing is known but that they were done.
    gone = sum(given.fleeting and task not in evidence.known for task, given in evidence.given.items())
    verdict.done += gone
    reported = {(effect.task, effect.fence) for effect in _of(evidence.effects, "requeued", "dead_lettered")}
    verdict.lost = evidence.stats.get("begun", 0) - verdict.done - len(reported)


def _idempotent(evidence: Evidence, verdict: Verdict) -> None:
    for first, second, created in evidence.again:
        if created or first != second:
            verdict.problems.append(f"one key made two tasks: {first} and {second}")


def _store(evidence: Evidence, verdict: Verdict) -> None:
    stats, dead = evidence.stats, verdict.dead
    if stats.get("spawned", 0) != verdict.tasks:
        verdict.problems.append(f"{verdict.tasks} tasks were spawned, and {stats.get('spawned', 0)} counted")
    if stats.get("done", 0) != verdict.done:
        verdict.problems.append(f"{verdict.done} tasks are done, and {stats.get('done', 0)} completions were counted")
    if stats.get("failed", 0) + stats.get("lost", 0) != dead:
        verdict.problems.append(f"{dead} tasks are dead, and {stats.get('failed', 0)} and {stats.get('lost', 0)} counted")
    if verdict.lost < 0:
        verdict.problems.append(f"{-verdict.lost} more attempts ended than began")
    for queue, counts in evidence.counts.items():
        if any(counts[:3]):
            verdict.problems.append(f"queue {queue} still holds {counts}")
    verdict.problems += [f"queue {queue} is not empty after the purge" for queue in evidence.queues]
    for key, size in evidence.kept.items():
        if key not in KEPT or size > MOST_FIELDS:
            verdict.problems.append(f"left behind: {key}, with {size} fields")
    if evidence.fleeting > MOST_FLEETING:
        verdict.problems.append(f"left behind: {evidence.fleeting} keys with a TTL")
