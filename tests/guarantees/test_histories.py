"""Promises 1 to 4 and 8, by what many clients at once were told: some order of their calls explains every reply.

The clients crowd a few keys, let leases run out, lose replies and are cancelled. LOCKBEAT_TEST_SEED repeats the dice of a run,
though not its timing; LOCKBEAT_TEST_HISTORY, in seconds, makes it longer than a second and a half.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from time import monotonic
from typing import Any

import pytest

from lockbeat import Claim, Done, Lockbeat
from lockbeat.errors import LeaseLost, LockTimeout, StoreUnavailable
from lockbeat.tasks import Task
from lockbeat.tasks.verbs import Claimed
from tests.conftest import Backend, Connect, only
from tests.history import Op
from tests.lease_models import Claims, Locks, Tasks
from tests.players import MOST_SENDINGS, Arena, Player, at_once

pytestmark = only("valkey", "redis", "cluster")

SECONDS = float(os.environ.get("LOCKBEAT_TEST_HISTORY", "1.5"))
KEYS = ["k", "k\xff", "kk"]
LEASES = [0.002, 0.01, 0.05, 20]
MOST_ATTEMPTS = 12


@pytest.fixture
async def arena(connect: Connect, backend: Backend, namespace: str) -> AsyncIterator[Arena]:
    seed = int(os.environ.get("LOCKBEAT_TEST_SEED") or random.randrange(1 << 32))
    print(f"LOCKBEAT_TEST_SEED={seed}")
    made = Arena(random.Random(seed), connect, backend, namespace)
    async with made.stack:
        yield made


def ms(seconds: float) -> int:
    return round(seconds * 1000)


# -- locks


async def use_locks(player: Player, key: str) -> None:
    """One of the verbs."""
    locks, owner, ttl = player.lb.locks, player.owner, player.dice.choice(LEASES)
    match player.dice.random():
        case roll if roll < 0.4:
            await acquire_lock(player, key, ttl)
        case roll if roll < 0.65:
            await player.call(key, "release", locks.release(key, owner), owner=owner)
        case roll if roll < 0.85:
            await player.call(key, "renew", locks.renew(key, owner, ttl), owner=owner, ttl=ms(ttl))
        case roll if roll < 0.98:
            await player.call(key, "owner", locks.owner(key))
        case _:
            ops = at_once(player, "release_all", KEYS, owner=owner)
            await locks.release_all(owner)
            player.history.closed(ops)


async def acquire_lock(player: Player, key: str, ttl: float) -> None:
    before, lost = len(player.history.ops), player.lost
    trying = player.lb.locks.try_acquire(key, player.owner, ttl)
    try:
        await player.call(
            key, "acquire", trying, lambda lease: lease and (lease.fence, ms(lease.expires_at)), owner=player.owner, ttl=ms(ttl)
        )
    except (asyncio.CancelledError, StoreUnavailable):
        undone(player, player.history.ops[before], lost)
        raise


def undone(player: Player, tried: Op, lost: int) -> None:
    """What a cancelled call took is given back behind it."""
    player.give_up(player.history.call(player.name, tried.key, "undo", tried, entered=tried.number), lost)


async def test_what_users_of_locks_are_told(arena: Arena) -> None:
    await arena.fill()
    await arena.play(SECONDS, KEYS, use_locks)
    arena.explained(Locks(), 50)


async def use_blocks(player: Player, key: str) -> None:
    """Hold the lock for a moment, or give up."""
    wait = player.dice.choice([0, 0.01, 1])
    handle = player.lb.lock(key, ttl=5, wait=wait)
    before, lost = len(player.history.ops), player.lost
    try:
        entering = handle.__aenter__()
        entered = await player.call(key, "enter", entering, lambda lease: lease.fence, owner=player.owner, ttl=5000)
    except (asyncio.CancelledError, LockTimeout) as problem:
        tried = player.history.ops[before]
        if wait == 0 and isinstance(problem, LockTimeout):
            player.history.told(tried, None)
        else:
            player.give_up(tried, lost)
            undone(player, tried, lost)
        return
    await asyncio.sleep(player.dice.choice([0, 0.0005, 0.002]))

    async def leave() -> bool:
        try:
            await handle.__aexit__(None, None, None)
        except LeaseLost:
            return False
        return True

    await player.call(key, "leave", leave(), entered=entered.number)


async def test_what_users_of_blocks_are_told(arena: Arena) -> None:
    await arena.fill()
    await arena.play(SECONDS, KEYS, use_blocks)
    arena.explained(Locks(), 50)


# -- claims


async def use_claims(player: Player, key: str) -> None:
    """One of the verbs, on a claim of one's own or another's, perhaps an old one."""
    claims, known = player.lb.claims, player.shared.setdefault(key, deque(maxlen=4))
    lease, hold, roll = player.dice.choice(LEASES), player.dice.choice([0, 0, 0.004, 0.02]), player.dice.random()
    if roll < 0.4 or not known:
        await acquire_claim(player, key, lease)
        return
    claim = player.dice.choice(list(known))
    match roll:
        case _ if roll < 0.55:
            await player.call(key, "renew", claims.renew(claim, lease), fence=claim.fence, lease=ms(lease))
        case _ if roll < 0.65:
            await player.call(key, "complete", claims.complete(claim, hold=hold), fence=claim.fence, hold=ms(hold))
        case _ if roll < 0.75:
            await player.call(key, "fail", claims.fail(claim, "broken"), fence=claim.fence)
        case _ if roll < 0.85:
            await player.call(key, "release", claims.release(claim), fence=claim.fence)
        case _ if roll < 0.96:
            await player.call(
                key,
                "is_claimed",
                claims.is_claimed(key),
                lambda found: found and (found.owner, found.fence, found.attempt, ms(found.expires_at)),
            )
        case _ if roll < 0.98:
            ops = at_once(player, "release_all", KEYS, owner=player.owner)
            await claims.release_all(player.owner)
            player.history.closed(ops)
        case _:
            ops = at_once(player, "cleanup", KEYS)
            await claims.cleanup()
            player.history.closed(ops)


async def acquire_claim(player: Player, key: str, lease: float) -> None:
    before, lost = len(player.history.ops), player.lost

    def told(answer: object) -> object:
        if isinstance(answer, Claim):
            player.shared[key].append(answer)
            return "claim", answer.fence, ms(answer.expires_at), answer.attempt, answer.previous_owner
        if isinstance(answer, Done):
            return "done", answer.owner, ms(answer.until)
        return "busy", answer.owner, ms(answer.expires_at)  # type: ignore[attr-defined]

    try:
        await player.call(
            key, "acquire", player.lb.claims.acquire(key, player.owner, lease), told, owner=player.owner, lease=ms(lease)
        )
    except (asyncio.CancelledError, StoreUnavailable):
        undone(player, player.history.ops[before], lost)
        raise


async def test_what_users_of_claims_are_told(arena: Arena) -> None:
    await arena.fill()
    await arena.play(SECONDS, KEYS, use_claims)
    arena.explained(Claims(), 50)


# -- tasks, of which each player knows the names that the others gave them


async def use_tasks(player: Player, _: str) -> None:
    """One of the verbs, on an attempt of one's own or another's, perhaps an old one."""
    tasks, history, attempts = player.lb.tasks, player.history, player.shared["attempts"]
    lease, roll = player.dice.choice(LEASES), player.dice.random()
    if len(player.shared["open"]) < 3:
        await spawn(player)
    elif roll < 0.4 or not attempts:
        await claim_tasks(player, player.dice.choice([1, 1, 1, 100]), lease)
    elif roll < 0.42:
        ops = at_once(player, "release_all", names(player), owner=player.owner)
        await tasks.release_all(player.owner)
        history.closed(ops)
    elif (task := player.dice.choice(list(attempts))).params in names(player):
        await use_attempt(player, task, lease, roll)


def names(player: Player) -> list[str]:
    """The tasks that are looked at: all that have not ended, and those that did of late, for their leases end later."""
    return [*player.shared["open"], *player.shared["ended"]]


def has_ended(player: Player, name: str) -> None:
    if name in player.shared["open"]:
        del player.shared["open"][name]
        player.shared["ended"].append(name)


async def use_attempt(player: Player, task: Task, lease: float, roll: float) -> None:
    tasks, name, fence = player.lb.tasks, task.params, task.fence
    match roll:
        case _ if roll < 0.6:
            await player.call(
                name,
                "heartbeat",
                tasks.heartbeat(task, lease),
                lambda said: said.refusal if said.expires_at is None else ms(said.expires_at),
                fence=fence,
                lease=ms(lease),
            )
        case _ if roll < 0.7:
            failed = await player.call(name, "fail", tasks.fail(task, "broken"), lambda said: said.outcome, fence=fence)
            if failed.reply == "dead_lettered":
                has_ended(player, name)
        case _ if roll < 0.85:
            delay = player.dice.choice([0, 0, 0.003, 0.02])
            deferring = tasks.defer(task, delay) if delay else tasks.release(task)
            await player.call(name, "defer", deferring, fence=fence, delay=ms(delay))
        case _ if roll < 0.96:
            await player.call(name, "get", tasks.get(task.id), lambda info: (info.state, info.attempts))
        case _ if roll < 0.98:
            ended = await player.call(name, "complete", tasks.complete(task), fence=fence)
            if ended.reply:
                has_ended(player, name)
        case _:
            await player.call(name, "cancel", tasks.cancel(task.id))
            has_ended(player, name)


async def spawn(player: Player) -> None:
    shared = player.shared
    name = f"t{len(shared['spawned'])}"
    shared["open"][name] = None
    shared["spawned"].append(name)
    spawning = player.lb.tasks.spawn("job", name, max_attempts=MOST_ATTEMPTS, retry=None)
    await player.call(name, "spawn", spawning, lambda spawned: None)


def watch(lb: Lockbeat) -> list[float | None]:
    """When there may be more, as the runs of the client's claims tell from now on."""
    wakes: list[float | None] = []
    claim_on = lb.tasks.claim_on

    async def watched(claiming: Coroutine[Any, Any, Claimed]) -> Claimed:
        claimed = await claiming
        wakes.append(claimed.wake)
        return claimed

    lb.tasks.claim_on = lambda *args, **options: watched(claim_on(*args, **options))  # type: ignore[method-assign]
    return wakes


async def claim_tasks(player: Player, limit: int, lease: float) -> None:
    """A claim of all that there are is about every task: those that it does not bring could not be claimed.

    Unless its runs were cut short: then they say that there is more at once, as they do where a lease is about to end.
    """
    history, lost, called = player.history, player.lost, monotonic()
    wakes = player.shared["wakes"][player.lb]
    runs = len(wakes)
    known, ops, spawned, before = names(player), [], player.shared["spawned"], len(player.shared["spawned"])

    def write_down(name: str) -> Op:
        op = history.call(player.name, name, "claim", owner=player.owner, lease=ms(lease))
        op.called = called
        ops.append(op)
        return op

    try:
        # Not many lose their reply: each is then about all tasks, for a long while.
        tasks = await player.run(player.lb.tasks.claim("default", player.owner, limit, lease), 0.05)
    except (asyncio.CancelledError, StoreUnavailable):
        # It goes on, and gives back what it claims, be it spawned after now.
        undoing = monotonic()
        await player.settle()
        for name in {*known, *spawned[before:]}:
            op = write_down(name)
            back = history.call(player.name, name, "give_back", op, entered=op.number)
            back.called = undoing
            if player.lost == lost:
                history.closed([op, back])
        return
    again = min(player.lost - lost, MOST_SENDINGS)
    player.shared["attempts"].extend(tasks)
    for task in tasks:
        history.told(write_down(task.params), (task.fence, task.attempt, ms(task.expires_at)))
    if limit > MOST_ATTEMPTS and not again and all(wake is None or wake > 0.01 for wake in wakes[runs:]):
        for name in set(known) - {task.params for task in tasks}:
            history.told(write_down(name), None)
    if again:
        for name in {*known, *spawned[before:]} - {op.key for op in ops}:
            history.closed([write_down(name)])
    for op in ops:
        history.also(op, again)


async def test_what_users_of_tasks_are_told(arena: Arena) -> None:
    arena.shared |= {"spawned": [], "open": {}, "ended": deque(maxlen=6), "attempts": deque(maxlen=12)}
    await arena.fill()
    arena.shared["wakes"] = {lb: watch(lb) for lb in {player.lb for player in arena.players}}
    await arena.play(SECONDS, KEYS, use_tasks)
    arena.explained(Tasks(MOST_ATTEMPTS), 50, undecided=4, most=10_000)
