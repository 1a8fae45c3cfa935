"""The shadow: jobs that send nothing, beside another beat that does; and on which slots the two disagree.

The shadow's jobs lie in a namespace of their own. Their ledgers hold its slots, and a triggered run for each message that the
other beat has sent, which `witness` in that process enters there. So to compare is to read.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lockbeat.celery.config import Config
from lockbeat.errors import LockbeatError
from lockbeat.jobs import LedgerEntry
from lockbeat.leases.lease import monotonic
from lockbeat.sync import Lockbeat
from lockbeat.triggers import Every
from lockbeat.values.durations import instant

log = logging.getLogger("celery.beat")

SHADOW = "celery.shadow"
"""The function of the shadow's jobs, which does nothing."""
KEEP = 10_000
EARLY_MS = 1000
"""By so much before its slot a message may have been sent, for the clocks of two hosts differ."""
SETTLE_MS = 15_000
"""A slot is judged when it is so old: the other beat may be late."""
LATE_MS = 60_000
"""A message later than this after the slot of a crontab is for another one."""
NOT_THERE = ("missed", "skipped", "unknown")
"""States of slots of which the shadow has nothing to say."""
EVERY = 60.0
PAGE = 1000
MOST = 200_000
"""Entries that one report looks at."""


def shadowed(namespace: str | None) -> str:
    """Where the jobs of a shadow lie."""
    return f"{namespace or 'lockbeat'}-shadow"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A slot of an entry for which the other beat has not sent one message; or a message that it has sent at no slot."""

    job: str
    at_ms: int
    """The slot; or when the message was sent."""
    sent: int
    """How many messages the other beat has sent for it."""
    is_slot: bool = True

    @property
    def at(self) -> datetime:
        return instant(self.at_ms)

    @property
    def what(self) -> str:
        if not self.is_slot:
            return "the other beat has sent a message, and this is no slot"
        return f"the other beat has sent {self.sent} messages" if self.sent else "the other beat has sent nothing"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a shadow and the other beat did."""

    slots: int
    """That were compared."""
    messages: int
    """That the other beat has sent."""
    disagreements: tuple[Disagreement, ...]
    """The oldest first."""


def compare(
    entries: Iterable[LedgerEntry],
    now_ms: int,
    *,
    after_ms: int = -1,
    phased: Collection[str] = (),
    settle_ms: int = SETTLE_MS,
) -> Comparison:
    """Compare what the ledgers hold. Judged are slots after `after_ms`, since the first message of the other beat. Pure.

    phased: entries with a period, which each beat counts from where it likes; for them one message from slot to slot will do.
    """
    slots, sent = defaultdict[str, dict[int, bool]](dict), defaultdict[str, list[int]](list)
    for entry in entries:
        if entry.run:
            sent[entry.job].append(entry.slot_ms)
        elif entry.state != "anchored":
            slots[entry.job][entry.slot_ms] = entry.state not in NOT_THERE
            slots[entry.job].setdefault(entry.last_ms or entry.slot_ms, False)
    began_ms = min((min(times) for times in sent.values()), default=None)
    if began_ms is None:
        return Comparison(0, 0, ())
    since_ms, until_ms = max(began_ms, after_ms), now_ms - settle_ms
    judged, found = 0, list[Disagreement]()
    for job in slots.keys() | sent.keys():
        due = sorted(slots[job])
        counts, strays = _counted(due, sorted(sent[job]), None if job in phased else LATE_MS)
        found += [Disagreement(job, at, 1, False) for at in strays if after_ms < at <= until_ms and due and at > due[0]]
        for slot_ms, count in zip(due, counts, strict=True):
            if slots[job][slot_ms] and since_ms < slot_ms <= until_ms:
                judged += 1
                if count != 1:
                    found.append(Disagreement(job, slot_ms, count))
    return Comparison(judged, sum(map(len, sent.values())), tuple(sorted(found, key=lambda each: (each.at_ms, each.job))))


def _counted(slots: Sequence[int], sent: Sequence[int], most_late: int | None) -> tuple[list[int], list[int]]:
    """How many messages fall to each slot: those from it, or a little before, until the next. And those that fall to none."""
    counts, strays = [0] * len(slots), list[int]()
    for at in sent:
        slot = bisect_right(slots, at + EARLY_MS) - 1
        if slot < 0 or (most_late is not None and at - slots[slot] > most_late):
            strays.append(at)
        else:
            counts[slot] += 1
    return counts, strays


class Watch:
    """Tells the log on which slots a shadow and the other beat disagree, about once a minute."""

    def __init__(self, config: Config) -> None:
        self._lb = Lockbeat(config.url, namespace=shadowed(config.namespace), timeout=config.timeout)
        self._next, self._since, self._judged_ms = monotonic() + EVERY, datetime.now(UTC), -1
        self._silent = 0

    def look(self) -> None:
        """Look, if it is time. What the store says against it is for the log."""
        if monotonic() < self._next:
            return
        self._next = monotonic() + EVERY
        try:
            entries = list(self._entries())
            phased = {state.job.name for state in self._lb.jobs.list() if isinstance(state.job.trigger, Every)}
        except LockbeatError as problem:
            log.warning("shadow: can't compare now: %s", problem)
            return
        now_ms = max((entry.at_ms or 0 for entry in entries), default=0)
        found = compare(entries, now_ms, after_ms=self._judged_ms, phased=phased)
        if not found.messages:
            self._silent += 1
            if self._silent in (2, 60):
                log.warning("shadow: the other beat has sent nothing so far; does its app call lockbeat.celery.witness(app)?")
            return
        self._judged_ms = now_ms - SETTLE_MS
        for each in found.disagreements:
            log.warning("shadow: %s at %s: %s", each.job, each.at.isoformat(), each.what)
        log.info("shadow: %d slots compared, %d disagreements", found.slots, len(found.disagreements))

    def _entries(self) -> Iterator[LedgerEntry]:
        after, since = None, max(self._since, datetime.now(UTC) - timedelta(minutes=30))
        for _ in range(MOST // PAGE):
            page: Any = self._lb.jobs.history(since, limit=PAGE, after=after)
            yield from page.entries
            after = page.more
            if after is None:
                return

    def close(self) -> None:
        self._lb.close()
