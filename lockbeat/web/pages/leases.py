"""Locks and claims: who holds them, by which fence, until when, and who waits."""

from __future__ import annotations

import asyncio

from lockbeat.claims.values import Claim
from lockbeat.leases.lease import Lease
from lockbeat.store import Store
from lockbeat.store.replies import sifted
from lockbeat.web.look import Look, Page
from lockbeat.web.pages.store import entries

SHOWN = 100
WAITERS = 200


async def leases(look: Look) -> Page:
    store = look.lb.store
    owner, queue = look.text("owner"), look.text("queue") or "default"
    (locks, complete), claims, expired, waiting, now, held = await asyncio.gather(
        found_locks(store, owner or ""),
        look.lb.claims.list(queue, SHOWN),
        look.lb.claims.expired(SHOWN),
        waiters(store),
        look.now(),
        entries(store, "claim:live"),
    )
    return Page(
        "leases.html",
        {
            "locks": locks[:SHOWN],
            "complete": complete,
            "claims": claims,
            "expired": expired,
            "waiting": waiting,
            "now": now,
            "owner": owner or "",
            "queue": queue,
            "claimed": held,
        },
    )


async def found_locks(store: Store, owner: str) -> tuple[list[Lease], bool]:
    """The first locks of each shard (`lock/list`), and whether that was all of them."""
    pages = await store.on_every_shard(lambda shard: store.call("lock/list", shard, owner=owner, after="", limit=SHOWN))
    found = [Lease(key.decode(), who.decode(), fence, ms / 1000) for page in pages for key, who, fence, ms in sifted(page.locks)]
    return sorted(found, key=lambda lease: lease.key), not any(page.cursor for page in pages) and len(found) <= SHOWN


async def waiters(store: Store) -> dict[str, list[str]]:
    """By a lock's key who waits for it, the first first; of the first WAITERS of each shard."""

    async def one_shard(shard: int) -> list[tuple[str, str]]:
        queue, known = store.keys.key(shard, "lock:queue"), store.keys.key(shard, "lock:waiters")
        members = await store.wire(shard).command("ZRANGE", queue, "0", str(WAITERS - 1))
        places = [member.rpartition(b"\xff") for member in members]
        tokens = [rest[16:] for _, _, rest in places]
        said = await store.wire(shard).command("HMGET", known, *tokens) if tokens else []
        rows = zip(places, said, strict=True)
        # "SEQ TTL_MS CHANNEL OWNER"
        return [
            (key.decode(errors="replace"), line.split(b" ", 3)[-1].decode(errors="replace")) for (key, _, _), line in rows if line
        ]

    found: dict[str, list[str]] = {}
    for rows in await store.on_every_shard(one_shard):
        for key, who in rows:
            found.setdefault(key, []).append(who)
    return found


__all__ = ["Claim", "leases"]
