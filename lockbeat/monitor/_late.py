"""Which jobs are due and not fired."""

from __future__ import annotations

from lockbeat.store.calls import Calls

MOST_LATE = 1000
"""Jobs of a shard that are looked at."""


async def late_jobs(calls: Calls, shard: int, least_ms: int = 0) -> list[tuple[int, str]]:
    """By how many ms jobs are late, and which: by their slots, for one that is handed out again and again is hidden each time.

    least_ms: those that are late by more. Raises StoreError.
    """
    wire, key = calls.wire(shard), calls.keys.key
    seconds, microseconds = await wire.command("TIME")
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    names = await wire.command("ZRANGEBYSCORE", key(shard, "job:due"), "-inf", str(now_ms + 1000), "LIMIT", "0", str(MOST_LATE))
    slots = await wire.command("HMGET", key(shard, "job:slot"), *names) if names else []
    found = []
    for name, slot in zip(names, slots, strict=True):
        words = slot.split() if slot else []
        if len(words) > 1 and words[0] != b"-1" and words[1].isdigit() and int(words[1]) < now_ms - least_ms:
            found.append((now_ms - int(words[1]), name.decode(errors="replace")))
    return found
