"""How jobs stand in the store: the definition, the next slot and what else is known of each, read in one place (`job/get`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from lockbeat.errors import LockbeatError, StoreError, Unreadable
from lockbeat.jobs.definition import Job
from lockbeat.store import Store
from lockbeat.store.records import JobLine


class Standing(NamedTuple):
    """A job as the store has it, to be shown, or to be changed if it still stands so."""

    job: Job
    rev: str
    place: str
    """As `job:slot` has it; empty: it was lost."""
    paused: str = ""
    """As `job:paused` has it, read as latin-1."""
    open: bytes = b""
    """As `job:open` has it."""
    counts: str = ""
    """As `job:counts` has them."""
    backfill: bytes = b""
    """As `backfill` has it."""


async def standings(store: Store, shard: int, names: Iterable[str]) -> dict[str, Standing | StoreError]:
    """How jobs of a shard stand; of one that can't be read, why. One that is unknown is left out."""
    wanted, found = list(names), dict[str, Standing | StoreError]()
    replies = await store.call_many([store.row["job/get"](job=name) for name in wanted], shard)
    for name, reply in zip(wanted, replies, strict=True):
        if isinstance(reply, StoreError):
            found[name] = reply
        elif reply:
            found[name] = _standing(store, shard, name, reply)
    return found


def _standing(store: Store, shard: int, name: str, reply: tuple[bytes, ...]) -> Standing | StoreError:
    definition, place, opened, counts, paused, backfill = reply
    line = JobLine.of(definition.decode(errors="replace"))
    try:
        entry, job = "job:slot", Job.from_definition(name, line.definition)
        counted = counts.decode(errors="replace")
        return Standing(job, line.rev, place.decode(), paused.decode("latin-1"), opened, counted, backfill)
    except LockbeatError as problem:
        if _is_json(line.definition):
            return not_understood(name, problem)
        entry = "job"
    except ValueError:
        pass
    return Unreadable(store.keys.key(shard, entry), name)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def not_understood(name: str, problem: Exception) -> StoreError:
    """A job's definition is whole, and says what this version can't read."""
    return StoreError(f"job {name!r} can't be read, a newer release may have declared it: {problem}")
