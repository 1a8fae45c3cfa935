"""The shadow: jobs that send nothing, beside another beat that does; and on which slots the two disagree.

The shadow's jobs lie in a namespace of their own. Their ledgers hold its slots, and a triggered run for each message that the
other beat has sent, which `witness` in that process enters there. So to compare is to read.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lockbeat.celery.config import Config
from lockbeat.errors import LockbeatError
from lockbeat.jobs import LedgerEntry
from lockbeat.leases.lease import monotonic
from lockbeat.sync import Lockbeat
from lockbeat.values.durations import instant

log = logging.getLogger("celery.beat")

SHADOW = "celery.shadow"
"""The function of the shadow's jobs, which does nothing."""
KEEP = 10_000
EARLY_MS = 1000
"""By so much before its slot a message may have been sent, for the clocks of two hosts differ."""
SETTLE_MS = 15_000
"""A slot is judged when it is so old: the other beat may be late."""
EVERY = 60.0
PAGE = 1000
MOST = 200_000
"""Entries that one report looks at."""


def shadowed(namespace: str | None) -> str:
    """Where the jobs of a shadow lie."""
    return f"{namespace or 'lockbeat'}-shadow"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A slot of an entry for which the other beat has not sent one message, but none or several."""

    job: str
    slot_ms: int
    sent: int
    """How many messages the other beat has sent between this slot and the next."""

    @property
    def slot(self) -> datetime:
        return instant(self.slot_ms)

    @property
    def what(self) -> str:
        return "the other beat has sent nothing" if not self.sent else f"the other beat has sent {self.sent} messages"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a shadow and the other beat did."""

    slots: int
    """That were compared."""
    messages: int
    """That the other beat has sent."""
    disagreements: tuple[Disagreement, ...]
    """The oldest first."""


def compare(entries: Iterable[LedgerEntry], now_ms: int, after_ms: int = -1) -> Comparison:
    """Compare what the ledgers hold. Judged are slots after `after_ms`, since the first message of the other beat. Pure."""
    slots, sent = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for entry in entries:
        if entry.run:
            sent[entry.job].append(entry.slot_ms)
        elif entry.state != "anchored":
            slots[entry.job].append(entry.slot_ms)
    began_ms = min((min(times) for times in sent.values()), default=None)
    if began_ms is None:
        return Comparison(0, 0, ())
    judged, found = 0, list[Disagreement]()
    for job, due in slots.items():
        due.sort()
        counts = _counted(due, sorted(sent[job]))
        for slot_ms, count in zip(due, counts, strict=True):
            if slot_ms > after_ms and began_ms < slot_ms <= now_ms - SETTLE_MS:
                judged += 1
                if count != 1:
                    found.append(Disagreement(job, slot_ms, count))
    return Comparison(judged, sum(map(len, sent.values())), tuple(sorted(found, key=lambda each: (each.slot_ms, each.job))))


def _counted(slots: Sequence[int], sent: Sequence[int]) -> list[int]:
    """How many messages fall to each slot: those from it, or a little before, until the next."""
    counts = [0] * len(slots)
    for at in sent:
        slot = bisect_right(slots, at + EARLY_MS) - 1
        if slot >= 0:
            counts[slot] += 1
    return counts


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
        except LockbeatError as problem:
            log.warning("shadow: can't compare now: %s", problem)
            return
        now_ms = max((entry.at_ms or 0 for entry in entries), default=0)
        found = compare(entries, now_ms, self._judged_ms)
        if not found.messages:
            self._silent += 1
            if self._silent in (2, 60):
                log.warning("shadow: the other beat has sent nothing so far; does its app call lockbeat.celery.witness(app)?")
            return
        self._judged_ms = now_ms - SETTLE_MS
        for each in found.disagreements:
            log.warning("shadow: %s at %s: %s", each.job, each.slot.isoformat(), each.what)
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
