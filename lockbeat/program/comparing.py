"""What a deploy would do: the jobs that a program declares, compared with those of the store. Changes nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from itertools import islice
from operator import attrgetter
from typing import Any, Literal

from lockbeat.calendars import read_view
from lockbeat.client import Lockbeat
from lockbeat.jobs import CODE, Job, JobState, KnownVersion, Slot, Version, around, known_versions, plan
from lockbeat.jobs.heads import Head, heads
from lockbeat.jobs.state import after_pause
from lockbeat.jobs.why import Clock, iso
from lockbeat.monitor import instances
from lockbeat.triggers import ByHand
from lockbeat.values.durations import instant

SHOWN = 3
"""Slots that are shown of a job, before and after."""
BATCH = 500
"""Jobs that differ, of which all is read at a time."""
COMPARED = tuple(one.name for one in fields(Job) if one.compare and one.name != "name")
_compared = attrgetter(*COMPARED)
Kind = Literal["added", "changed", "removed", "returns"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What becomes of one job."""

    job: str
    kind: Kind
    schedule: str
    """The trigger, as it is to be; of one that is removed, as it is."""
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Options that differ: as the store has them, as the code has them."""
    before: tuple[datetime, ...] = ()
    """The next slots, as the store has it."""
    after: tuple[datetime, ...] = ()
    """The next slots, if the code were declared now."""
    remarks: tuple[str, ...] = ()
    retires_at: float | None = None
    """removed: the earliest; None: when the last instance that declares it has gone, and ten minutes more."""
    lost: tuple[datetime, ...] = ()
    """Slots that are not fired because of the change."""
    doubled_with: str | None = None
    """Another name under which the same is declared: while instances of both versions live, both have slots."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a deploy would do."""

    version: str | None
    """Of the code; None: it declares no jobs."""
    differences: tuple[Difference, ...]
    """In order of name."""
    unchanged: int
    others: int
    """Jobs of the store that are no business of this code: other programs', the API's, or a release's that did not say whose."""
    newer: tuple[str, ...] = ()
    """Versions of this program that live and are newer: while they do, jobs that they declare stay as they are."""

    @property
    def lost(self) -> list[tuple[str, datetime]]:
        """Slots that are not fired because of the deploy; each gets its entry in the ledger, and its reason."""
        return [(each.job, slot) for each in self.differences for slot in each.lost]

    @property
    def doubled(self) -> list[tuple[str, str]]:
        """Pairs of names under which the same has slots while old and new instances live."""
        return [(each.job, each.doubled_with) for each in self.differences if each.doubled_with]


class _Looking(Lockbeat):
    """A client that does not even say which format a new store is in."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._options["looks"] = True


async def compare(
    url: str | None, declared: Mapping[str, Job], version: Version | None, *, clock: Clock = iso, **options: Any
) -> Comparison:
    """Compare the jobs of a program with a store. Raises StoreError.

    Of jobs that the store has as they are declared, their heads are read alone.

    clock: spells an instant in remarks. options: as for Lockbeat.
    """
    async with _Looking(url, **options) as lb:
        now_ms = await lb.store.server_ms(0)
        known = await known_versions(lb.store, version)
        there = await heads(lb.store)
        living = [instance.version for instance in await instances(lb.store)]
        ours = _ours(declared, there, known, version)
        found, gone, were = list[Difference](), list[Difference](), dict[str, Job]()
        differing = [name for name, job in declared.items() if _differs(job, there.get(name))]
        async for states in _states(lb, differing):
            several = (_declared(lb, declared[name], state, name in there, now_ms, clock) for name, state in states.items())
            found += [each for each in await asyncio.gather(*several) if each]
        left = sorted(name for name in there if name not in declared)
        removed = [name for name in left if there[name].origin == CODE and there[name].version in ours]
        async for states in _states(lb, [name for name in removed if not there[name].is_retired]):
            standing = [state for state in states.values() if state is not None and _has_slots(state)]
            gone += await asyncio.gather(*(_removed(lb, state, known, living) for state in standing))
            were |= {state.job.name: state.job for state in standing}
        newer = [known[id_] for id_ in ours if id_ in known and known[id_].is_newer and known[id_].until_ms >= now_ms]
        return Comparison(
            version and version.name,
            tuple(sorted(_renamed(found, gone, declared, were), key=lambda each: each.job)),
            len(declared) - len(found),
            len(left) - len(removed),
            tuple(sorted(_name(each) for each in newer)),
        )


def _differs(job: Job, head: Head | None) -> bool:
    """Whether there may be something to do about a job that the code declares."""
    return head is None or head.is_retired or head.rev != job.rev


async def _states(lb: Lockbeat, names: Sequence[str]) -> AsyncIterator[dict[str, JobState | None]]:
    """How jobs stand, some at a time; None: there is none of that name, or it can't be read."""
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        yield dict.fromkeys(some) | await lb.jobs.get_many(some)


def _has_slots(state: JobState) -> bool:
    """Whether it has neither ended nor retired."""
    by_hand = isinstance(state.job.trigger, ByHand)
    return state.retired_at is None and (state.next is not None or state.paused is not None or by_hand)


def _name(known: KnownVersion) -> str:
    return Version(known.id, known.number).name


def _ours(
    declared: Iterable[str], there: Mapping[str, Head], known: Mapping[str, KnownVersion], version: Version | None
) -> set[str]:
    """The versions of this program: its own, those that have declared a job of the same name, and those before them."""
    ours = {version.id} if version else set()
    ours |= {said for name in declared if name in there and (said := there[name].version)}
    while before := {each.id for each in known.values() if each.after & ours} - ours:
        ours |= before
    return ours


async def _next_slots(lb: Lockbeat, job: Job, first: Slot | None, fired: int = 0) -> tuple[datetime, ...]:
    """The next slots that are fired of a job that stands there."""
    if first is None:
        return ()
    closed = None
    if job.exclude:
        closed = (await read_view(lb.store, lb.jobs.shard_of(job.name), job.exclude, job.trigger.timezone)).closed
    most = SHOWN if job.limit is None else min(SHOWN, max(job.limit - fired, 0))
    coming = (each.slot for each in islice(around.upcoming(job, first.slot_ms, closed), 1000) if not each.calendar)
    return tuple(islice(coming, most))


async def _declared(lb: Lockbeat, job: Job, state: JobState | None, known: bool, now_ms: int, clock: Clock) -> Difference | None:
    """What becomes of a job that the code declares; None: nothing. known: the store has one of its name."""
    first = plan.first(job, now_ms)
    if state is None and known:
        words = "what the store has of it can't be read here: if a newer lockbeat declared it, it stays as it is"
        return Difference(job.name, "changed", str(job.trigger), remarks=(words,))
    if state is None:
        if first is None and not isinstance(job.trigger, ByHand):  # it has ended, and may be forgotten
            return None
        return Difference(job.name, "added", str(job.trigger), after=await _next_slots(lb, job, first))
    if state.retired_at is not None:
        remarks = [f"retired since {clock(state.retired_at)}: its slots since then are skipped"]
        paused = state.paused
        if paused is not None and (paused.until_at is None or paused.until_at * 1000 > now_ms):
            remarks.append("it was paused before, and comes back so")
            first = first and after_pause(job, first, paused)
        after = await _next_slots(lb, job, first, state.counts.fired)
        return Difference(job.name, "returns", str(job.trigger), _differing(state.job, job), after=after, remarks=tuple(remarks))
    if state.job.rev == job.rev:
        return None
    remarks = list[str]()
    if state.job.origin not in (None, CODE):
        remarks.append(f"stays as it is: it belongs to origin {state.job.origin!r}; to have it, delete that one, with its ledger")
        return Difference(job.name, "changed", str(job.trigger), _differing(state.job, job), remarks=tuple(remarks))
    keeps = state.job.rev.partition(".")[0] == job.rev.partition(".")[0]
    before = await _next_slots(lb, state.job, state.next, state.counts.fired)
    same = keeps and state.job.exclude == job.exclude
    after = before if same else await _next_slots(lb, job, state.next if keeps else first, state.counts.fired)
    lost = list[datetime]()
    if state.paused is not None:
        remarks.append("it is paused, and stays so")
    elif not keeps:
        if state.next is not None and state.next.due_ms <= now_ms:
            lost.append(instant(state.next.slot_ms))
            remarks.append("a slot of the old trigger is due: if the code is declared before it is fired, it is missed")
        remarks += _seam(state, job, now_ms, clock)
    return Difference(
        job.name, "changed", str(job.trigger), _differing(state.job, job), before, after, tuple(remarks), lost=tuple(lost)
    )


def _seam(state: JobState, job: Job, now_ms: int, clock: Clock) -> list[str]:
    """What people may stumble over where one trigger follows another: a gap that neither has, or two slots close together."""
    last, coming = state.job.trigger.prev(now_ms), job.trigger.next(now_ms)
    if last is None or coming is None:
        return []
    before, passed = state.job.trigger.next(last), job.trigger.prev(coming - 1)
    periods = [second - first for first, second in ((last, before), (passed, coming)) if first is not None and second is not None]
    if not periods:
        return []
    if coming - last > 1.5 * max(periods):
        return [f"from {clock(last / 1000)} to {clock(coming / 1000)} there is no slot"]
    if coming - last < 0.5 * min(periods):
        return [f"{clock(last / 1000)} by the old trigger and {clock(coming / 1000)} by the new one are two slots"]
    return []


def _differing(before: Job, after: Job) -> dict[str, tuple[Any, Any]]:
    """The options that differ, for people and for JSON."""
    found = {}
    for name, old, new in zip(COMPARED, _compared(before), _compared(after), strict=True):
        if old != new:
            found[name] = _said(old), _said(new)
    return found


def _said(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool, dict, list)):
        return value
    return list(value) if isinstance(value, tuple) else str(value)


async def _removed(lb: Lockbeat, state: JobState, known: Mapping[str, KnownVersion], living: list[str | None]) -> Difference:
    """What becomes of a job that the code declares no more."""
    job = state.job
    declares = known.get(job.version or "")
    count = living.count(_name(declares)) if declares else 0
    waits = f"{count} living instance{'s' * (count != 1)} declare{'s' * (count == 1)} it"
    return Difference(
        job.name,
        "removed",
        str(job.trigger),
        before=await _next_slots(lb, job, state.next, state.counts.fired),
        remarks=(waits if count else "no living instance declares it",),
        retires_at=declares.retires_ms / 1000 if declares and not count else None,
    )


def _renamed(
    changed: Iterable[Difference], gone: Sequence[Difference], declared: Mapping[str, Job], were: Mapping[str, Job]
) -> list[Difference]:
    """All of them; to those that are removed and added with the same trigger and options, which is which."""
    by_key, taken = defaultdict[object, list[Difference]](list), dict[str, Difference]()
    for old in reversed(gone):
        for key in _keys(were[old.job]):
            by_key[key].append(old)

    def same_as(job: Job) -> Difference | None:
        for several in (by_key[key] for key in _keys(job)):
            while several:
                if (old := several.pop()).job not in taken:
                    return old
        return None

    found = list[Difference]()
    for each in changed:
        if each.kind == "added" and (same := same_as(declared[each.job])) is not None:
            words = f"as {same.job}, which leaves the code: a new job to the store, with a ledger of its own"
            each = replace(each, remarks=(*each.remarks, words), doubled_with=same.job)
            taken[same.job] = replace(same, remarks=(*same.remarks, f"the same is declared as {each.job}"))
        found.append(each)
    return found + [taken.get(old.job, old) for old in gone]


_BUT_NAMES = attrgetter(*(name for name in COMPARED if name not in ("function", "params")))


def _keys(job: Job) -> list[object]:
    """Two jobs that share one of these differ by their names alone, or by functions of these names."""
    but_names = _BUT_NAMES(job), job.params_text
    return [(but_names, job.function), *([(but_names, None)] if job.function == job.name else [])]
