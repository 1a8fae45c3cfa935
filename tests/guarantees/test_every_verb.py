"""Promise 8, as a table: every verb, and what may happen to a call on its way.

A call whose reply was lost is repeated, gives the first outcome, and counts once, whatever others did in between. A cancelled
call leaves no orphan behind: it has happened or it has not, and what it had taken is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lockbeat import Claim, Lockbeat
from tests.conftest import Connect, chosen, only, wait_until
from tests.proxy import Proxy
from tests.verbs import LOOKS, VERBS, has, look, shape

NOT_VERBS = {
    "handle",  # of a claim: calls nobody
    *("claim_on", "find_lost", "give_all_back", "give_back", "reply_lost", "completing"),  # the worker's
    *("shard_of", "stand_again", "resume_due", "pause_failing", "see_failure", "declare", "forget_removed"),  # the scheduler's
    "all",  # asks nothing itself
}
"""What is public by its name alone."""
BEHIND = 11
"""How many others come between a call and its repetition, the last of whom stays."""
CANCELLED = [
    (name, backend)
    for name in VERBS
    for backend in chosen("valkey", *(() if name in LOOKS else ("memory",)), *(("cluster",) if VERBS[name].ends else ()))
    if not name.endswith(("in pages", "in steps"))  # of which some may have been done
]


@only("memory")
def test_the_table_has_every_verb(lb: Lockbeat) -> None:
    public = {
        f"{room}.{name}"
        for room in ("locks", "claims", "tasks", "jobs", "calendars", "fenced")
        for kind in type(getattr(lb, room)).__mro__
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_") and name not in NOT_VERBS
    }
    assert {name.split(" ")[0] for name in VERBS} == public


async def others(lb: Lockbeat, room: str, times: int) -> None:
    """Others take what is there, one after the other; the last is still at it."""
    for n in range(times):
        last, owner = n == times - 1, f"other-{n}"
        if room == "locks" and await lb.locks.try_acquire("k", owner, 30) and not last:
            assert await lb.locks.release("k", owner)
        if room == "claims" and isinstance(claim := await lb.claims.acquire("k", owner), Claim) and not last:
            assert await (lb.claims.fail(claim, "theirs") if n % 2 else lb.claims.release(claim))
        if room == "calendars":
            await lb.calendars.put("holidays", [f"203{n % 10}-01-01 theirs"])
        if room == "tasks":
            owner = owner if n else "alice"  # her calls are told apart, too
            for task in await lb.tasks.claim("default", owner, 10, 30):
                assert last or await (lb.tasks.fail(task, "theirs", 0) if n % 2 else lb.tasks.release(task))


LOST, TEN = "its reply is lost", "its reply is lost, and ten others have come and gone"
Fault = Callable[[Proxy, Callable[[bytes], bool]], None]
FAULTS: dict[str, tuple[Fault, int]] = {
    LOST: (lambda proxy, those: proxy.lose_reply(those), 0),
    "its reply is lost twice": (lambda proxy, those: proxy.lose_reply(those, 2), 0),
    "the line breaks before it arrives": (lambda proxy, those: proxy.lose_request(those), 0),
    "its reply is lost, and another comes": (lambda proxy, those: proxy.lose_reply(those), 1),
    TEN: (lambda proxy, those: proxy.lose_reply(those), BEHIND),
}
"""What happens to a request, and how many others come before it is repeated."""


class Path:
    """Makes one call after another, each in a store of its own, with one fault on its way."""

    def __init__(self, connect: Connect, namespace: str, lossy: Proxy) -> None:
        self._connect, self._namespace, self._lossy = connect, namespace, lossy
        self._stores = 0

    async def outcome(self, name: str, fault: Fault, nth: int = 0, between: int = 0) -> tuple[Any, Any]:
        """What the verb answers, and the store then. The fault meets its `nth` request for a script, and the others come then."""
        verb, proxy = VERBS[name], self._lossy
        self._stores += 1
        store = f"{self._namespace}-{self._stores}"
        lossy = Lockbeat(proxy.url, namespace=store, owner="alice", timeout=10)
        async with self._connect(namespace=store) as lb, lossy as client:
            given = await verb.given(lb)
            proxy.lost, proxy.waits = 0, between > 0
            requests = iter(range(nth))
            fault(proxy, lambda request: b"EVAL" in request and next(requests, None) is None)
            calling = asyncio.ensure_future(verb.call(client, given))
            if between:
                await wait_until(lambda: calling.done() or proxy.lost, "the fault meets the call")
                await others(lb, name.split(".")[0], between)
                assert calling.done() is (proxy.lost == 0)
            proxy.go_on()
            answer = await calling
            proxy.recover()
            room = name.partition(".")[0]
            return None if between and name in LOOKS else shape(answer), await look(lb, room)


@pytest.fixture
def path(connect: Connect, namespace: str, lossy: Proxy) -> Path:
    return Path(connect, namespace, lossy)


@only("valkey")
@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in VERBS for fault in FAULTS if name not in LOOKS or fault == LOST]
)
async def test_a_call_that_is_repeated_gives_the_first_outcome_and_doubles_nothing(
    path: Path, lossy: Proxy, name: str, fault: str
) -> None:
    """Each of its requests in turn. As if the reply to that had come late, after the others had come."""
    strike, between = FAULTS[fault]
    for nth in range(9):
        without = await path.outcome(name, Proxy.delay_reply if between else lambda proxy, those: None, nth, between)
        assert between or has(without[0], VERBS[name].says), without[0]
        assert await path.outcome(name, strike, nth, between) == without
        if lossy.lost == 0:
            return
    pytest.fail("it has more requests than were tried")


@pytest.mark.parametrize(("name", "backend"), CANCELLED, indirect=["backend"])
async def test_a_cancelled_call_has_happened_or_has_not(connect: Connect, namespace: str, name: str) -> None:
    """At every turn of the loop, until it is over by then, or only waits for the server."""
    verb, room = VERBS[name], name.partition(".")[0]
    allowed = []
    for n, end in enumerate((verb.call,) if verb.ends is None else verb.ends):
        async with connect(namespace=f"{namespace}-end-{n}", owner="alice") as lb:
            await end(lb, await verb.given(lb))
            allowed.append(await look(lb, room))
    for steps in range(40):
        async with connect(namespace=f"{namespace}-{steps}", owner="alice") as lb:
            given = await verb.given(lb)
            allowed[len(verb.ends or "1") :] = [await look(lb, room)]
            calling = asyncio.ensure_future(verb.call(lb, given))
            for _ in range(steps):
                await asyncio.sleep(0)
            calling.cancel()
            answer: Any = (await asyncio.gather(calling, return_exceptions=True))[0]
            if not isinstance(answer, asyncio.CancelledError):
                assert has(shape(answer), verb.says), answer
                return
            async with asyncio.timeout(30):
                while await look(lb, room) not in allowed:
                    await asyncio.sleep(0.002)
