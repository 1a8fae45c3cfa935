"""The checker of histories: it accepts what some order explains, and nothing else."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from tests.history import UNHEARD, History, Op, ServerClock, Undecided, explain
from tests.lease_models import Claims, Locks, Model, Tasks

END = math.inf


class Calls:
    """A history on one key, in milliseconds; the server's clock shows the same."""

    def __init__(self, model: Model | None = None) -> None:
        self.ops: list[Op] = []
        self.model = Locks() if model is None else model

    def __call__(self, start: float, end: float, verb: str, reply: Any = UNHEARD, after: Op | None = None, **args: Any) -> Op:
        op = Op("k", f"c{len(self.ops)}", verb, args, start / 1000, end / 1000, reply, after=after, number=len(self.ops))
        op.earliest = math.floor(start)
        op.latest = op.latest if end == END else math.ceil(end)
        self.ops.append(op)
        return op

    def acquire(
        self, start: float, end: float, owner: str, fence: int | None = None, at: int | None = None, ttl: int = 100
    ) -> Op:
        """`at`: when it was granted, with that fence; without a fence it was refused."""
        reply = None if fence is None else (fence, (round(start) if at is None else at) + ttl)
        return self(start, end, "acquire", reply, owner=owner, ttl=ttl)

    @property
    def problem(self) -> str:
        """Empty when the history is explained."""
        found = explain(self.ops, self.model)
        return "" if found is None else str(found)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_nothing_at_all_is_explained(calls: Calls) -> None:
    assert not calls.problem


def test_one_after_the_other_is_explained(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 1)
    calls.acquire(2, 3, "b")
    calls(4, 5, "release", True, owner="a")
    calls.acquire(6, 7, "b", 2)
    calls(8, 9, "owner", "b")
    assert not calls.problem


def test_two_owners_at_once_are_found(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 1)
    calls.acquire(2, 3, "b", 2)
    assert "no order explains" in calls.problem


def test_two_owners_are_explained_when_a_release_may_lie_between(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 1)
    calls(2, 9, "release", True, owner="a")
    calls.acquire(3, 4, "b", 2)
    assert not calls.problem


def test_a_refusal_before_the_holder_came_is_found(calls: Calls) -> None:
    calls.acquire(0, 1, "b")
    calls.acquire(2, 3, "a", 1)
    assert calls.problem


def test_a_refusal_beside_the_holders_call_is_explained(calls: Calls) -> None:
    calls.acquire(0, 3, "b")
    calls.acquire(1, 4, "a", 1)
    assert not calls.problem


@pytest.mark.parametrize("second", [5, 4])
def test_a_fence_that_does_not_grow_is_found(calls: Calls, second: int) -> None:
    calls.acquire(0, 1, "a", 5)
    calls(2, 3, "release", True, owner="a")
    calls.acquire(4, 5, "b", second)
    assert calls.problem


def test_a_new_fence_for_the_lease_that_its_owner_holds_is_found(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 5)
    calls.acquire(2, 3, "a", 6)
    assert calls.problem


def test_the_same_owner_keeps_its_fence(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 5)
    calls.acquire(2, 3, "a", 5, ttl=1)
    calls.acquire(4, 5, "b", 6)
    assert not calls.problem


def test_a_lease_is_free_at_its_end_and_held_before(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1, ttl=10)
    calls(9, 9, "owner", "a")
    calls(10, 10, "owner", None)
    calls.acquire(10, 10, "b", 2)
    assert not calls.problem


def test_a_grant_before_the_end_of_the_lease_before_is_found(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1, ttl=10)
    calls.acquire(9, 9, "b", 2)
    assert calls.problem


def test_a_refusal_after_the_end_is_found(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1, ttl=10)
    calls.acquire(10, 12, "b")
    assert calls.problem


def test_a_lease_that_ends_sooner_than_its_ttl_says_is_found(calls: Calls) -> None:
    """Its end tells when it was granted: not before it was asked for."""
    calls(5, 6, "acquire", (1, 14), owner="a", ttl=10)
    assert calls.problem


def test_the_clock_that_one_call_proved_binds_the_next(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 1, ttl=50)
    calls(10, 80, "owner", None)
    calls(11, 12, "owner", "a")
    assert not calls.problem
    calls(60, 90, "renew", True, owner="a", ttl=9)
    assert calls.problem


def test_a_renewal_moves_the_end(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1, ttl=10)
    calls(5, 6, "renew", True, owner="a", ttl=10)
    calls.acquire(14, 14, "b")
    calls.acquire(17, 17, "b", 2)
    assert not calls.problem


def test_a_renewal_after_the_end_is_found(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1, ttl=10)
    calls(11, 12, "renew", True, owner="a", ttl=10)
    assert calls.problem


def test_a_renewal_by_another_is_found(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1)
    calls(1, 2, "renew", True, owner="b", ttl=10)
    assert calls.problem


def test_a_release_by_another_is_found(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1)
    calls(1, 2, "release", True, owner="b")
    assert calls.problem


def test_a_refused_release_of_a_lock_that_was_held_is_found(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1)
    calls(1, 2, "release", False, owner="a")
    assert calls.problem


def test_a_release_that_succeeds_twice_is_found(calls: Calls) -> None:
    calls.acquire(0, 0, "a", 1)
    calls(1, 4, "release", True, owner="a")
    calls(2, 5, "release", True, owner="a")
    assert calls.problem


@pytest.mark.parametrize("refused", [True, False])
def test_a_call_without_a_reply_may_have_run_or_not(calls: Calls, refused: bool) -> None:
    calls(0, END, "acquire", owner="a", ttl=100)
    calls.acquire(5, 6, "b", None if refused else 1)
    assert not calls.problem


def test_a_call_without_a_reply_may_run_late(calls: Calls) -> None:
    calls(0, END, "acquire", owner="a", ttl=100)
    calls.acquire(1, 2, "b", 1)
    calls(3, 4, "release", True, owner="b")
    calls.acquire(5, 6, "b")
    calls(7, 8, "owner", "a")
    assert not calls.problem


def test_a_call_without_a_reply_does_not_run_twice(calls: Calls) -> None:
    calls(0, END, "acquire", owner="a", ttl=5)
    calls(1, 2, "owner", "a")
    calls(10, 11, "owner", None)
    calls(12, 13, "owner", "a")
    assert calls.problem


def test_a_cancelled_call_leaves_nothing_behind(calls: Calls) -> None:
    taken = calls(0, 5, "acquire", owner="a", ttl=100)
    calls(1, 5, "undo", after=taken, entered=taken.number)
    calls(2, 3, "owner", "a")
    calls.acquire(6, 7, "b", 1)
    assert not calls.problem


def test_a_lock_that_a_cancelled_call_left_is_found(calls: Calls) -> None:
    taken = calls(0, 5, "acquire", owner="a", ttl=100)
    calls(1, 5, "undo", after=taken, entered=taken.number)
    calls.acquire(6, 7, "b")
    assert calls.problem


def test_undoing_leaves_what_the_owner_took_by_another_call(calls: Calls) -> None:
    taken = calls(0, 9, "acquire", owner="a", ttl=100)
    calls.acquire(2, 3, "a", 1)
    calls(4, 9, "undo", after=taken, entered=taken.number)
    calls(10, 11, "owner", "a")
    assert not calls.problem
    calls(12, 13, "owner", None)
    assert calls.problem


def test_handles_of_one_owner_exclude_each_other(calls: Calls) -> None:
    first = calls(0, 1, "enter", 1, owner="a", ttl=50)
    second = calls(2, 9, "enter", 2, owner="a", ttl=50)
    calls(5, 6, "leave", True, entered=first.number)
    assert not calls.problem
    calls(10, 11, "leave", True, entered=second.number)
    calls(12, 13, "enter", 3, owner="a", ttl=50)
    assert not calls.problem
    calls(14, 15, "enter", 4, owner="a", ttl=50)
    assert calls.problem


def test_after_release_all_nothing_is_held(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 1)
    calls(2, 3, "release_all", owner="a")
    calls.acquire(4, 5, "b", 2)
    calls(6, 7, "release_all", owner="a")
    calls.acquire(8, 9, "a")
    assert not calls.problem
    calls(10, 11, "owner", None)
    assert calls.problem


def test_a_complaint_shows_where_it_stops(calls: Calls) -> None:
    calls.acquire(0, 1, "a", 1)
    calls.acquire(2, 3, "b", 2)
    assert "1 calls could be ordered" in calls.problem
    assert "acquire(owner='b', ttl=100) -> (2, 102)" in calls.problem


def test_a_search_that_grows_too_large_says_so(calls: Calls) -> None:
    for _ in range(12):
        calls(0, 10, "renew", owner="a", ttl=10)
        calls(0, 10, "acquire", owner="a", ttl=10)
    calls.acquire(11, 12, "b", 3, at=30)
    with pytest.raises(Undecided):
        explain(calls.ops, Locks(), most=500)


# -- claims


@pytest.fixture
def claims() -> Calls:
    """a holds it from 0 to 10 ms."""
    made = Calls(Claims())
    made(0, 0, "acquire", ("claim", 1, 10, 1, None), owner="a", lease=10)
    return made


GOOD_CLAIMS = [
    [("acquire", 5, ("busy", "a", 10), {"owner": "b", "lease": 10})],
    [("acquire", 10, ("claim", 2, 20, 2, "a"), {"owner": "b", "lease": 10}), ("complete", 11, False, {"fence": 1, "hold": 0})],
    [("complete", 12, True, {"fence": 1, "hold": 0}), ("acquire", 13, ("claim", 2, 23, 1, None), {"owner": "b", "lease": 10})],
    [("complete", 5, True, {"fence": 1, "hold": 9}), ("acquire", 13, ("done", "a", 14), {"owner": "b", "lease": 10})],
    [("complete", 5, True, {"fence": 1, "hold": 9}), ("acquire", 14, ("claim", 2, 24, 1, None), {"owner": "b", "lease": 10})],
    [("fail", 5, True, {"fence": 1}), ("acquire", 6, ("claim", 2, 16, 2, None), {"owner": "b", "lease": 10})],
    [("release", 5, True, {"fence": 1}), ("acquire", 6, ("claim", 2, 16, 1, None), {"owner": "b", "lease": 10})],
    [("renew", 5, True, {"fence": 1, "lease": 20}), ("is_claimed", 24, ("a", 1, 1, 25), {})],
    [("cleanup", 11, UNHEARD, {}), ("fail", 12, False, {"fence": 1}), ("is_claimed", 13, None, {})],
    [("cleanup", 11, UNHEARD, {}), ("acquire", 12, ("claim", 2, 22, 1, None), {"owner": "b", "lease": 10})],
    [("release_all", 5, UNHEARD, {"owner": "a"}), ("acquire", 6, ("claim", 2, 16, 1, None), {"owner": "b", "lease": 10})],
]
BAD_CLAIMS = [
    [("acquire", 9, ("claim", 2, 19, 2, "a"), {"owner": "b", "lease": 10})],
    [("acquire", 10, ("claim", 2, 20, 1, None), {"owner": "b", "lease": 10})],
    [("acquire", 10, ("claim", 1, 20, 2, "a"), {"owner": "b", "lease": 10})],
    [("acquire", 10, ("busy", "a", 10), {"owner": "b", "lease": 10})],
    [("acquire", 5, ("busy", "a", 11), {"owner": "b", "lease": 10})],
    [("complete", 5, True, {"fence": 1, "hold": 9}), ("acquire", 13, ("claim", 2, 23, 1, None), {"owner": "b", "lease": 10})],
    [("complete", 5, True, {"fence": 1, "hold": 9}), ("acquire", 14, ("done", "a", 14), {"owner": "b", "lease": 10})],
    [("complete", 5, True, {"fence": 1, "hold": 0}), ("complete", 6, True, {"fence": 1, "hold": 0})],
    [("complete", 5, False, {"fence": 1, "hold": 0})],
    [("complete", 5, True, {"fence": 7, "hold": 0})],
    [("fail", 5, True, {"fence": 1}), ("acquire", 6, ("claim", 2, 16, 1, None), {"owner": "b", "lease": 10})],
    [("release", 10, True, {"fence": 1})],
    [("renew", 10, True, {"fence": 1, "lease": 20})],
    [("cleanup", 9, UNHEARD, {}), ("is_claimed", 9, None, {})],
    [("cleanup", 11, UNHEARD, {}), ("complete", 12, True, {"fence": 1, "hold": 0})],
]


@pytest.mark.parametrize("then", GOOD_CLAIMS)
def test_what_claims_do_is_explained(claims: Calls, then: list[tuple[str, int, Any, dict[str, Any]]]) -> None:
    for verb, at, reply, args in then:
        claims(at, at, verb, reply, **args)
    assert not claims.problem


@pytest.mark.parametrize("then", BAD_CLAIMS)
def test_what_claims_never_do_is_found(claims: Calls, then: list[tuple[str, int, Any, dict[str, Any]]]) -> None:
    for verb, at, reply, args in then:
        claims(at, at, verb, reply, **args)
    assert claims.problem


# -- tasks


@pytest.fixture
def task() -> Calls:
    """Of two attempts; a has begun the first at 0, until 10 ms."""
    made = Calls(Tasks(2))
    made(0, 0, "spawn", None)
    made(0, 0, "claim", (1, 1, 10), owner="a", lease=10)
    return made


B = {"owner": "b", "lease": 10}
GOOD_TASKS = [
    [("claim", 9, None, B), ("claim", 10, (2, 2, 20), B), ("get", 11, ("running", 2), {})],
    [("complete", 11, True, {"fence": 1}), ("complete", 12, True, {"fence": 1}), ("claim", 13, None, B)],
    [("complete", 11, False, {"fence": 1}), ("get", 12, ("waiting", 1), {})],  # another claim took it back
    [("fail", 5, "requeued", {"fence": 1}), ("claim", 5, (2, 2, 15), B), ("fail", 6, "dead_lettered", {"fence": 2})],
    [("claim", 10, (2, 2, 20), B), ("get", 20, ("dead", 2), {})],
    [("heartbeat", 5, 25, {"fence": 1, "lease": 20}), ("claim", 24, None, B), ("claim", 25, (2, 2, 35), B)],
    [("heartbeat", 10, "expired", {"fence": 1, "lease": 20})],
    [("claim", 10, (2, 2, 20), B), ("heartbeat", 11, "not the owner", {"fence": 1, "lease": 20})],
    [("defer", 5, True, {"fence": 1, "delay": 5}), ("claim", 9, None, B), ("claim", 12, (2, 1, 22), B)],
    [("cancel", 5, True, {}), ("heartbeat", 6, "cancelled", {"fence": 1, "lease": 9}), ("complete", 7, False, {"fence": 1})],
    [("release_all", 5, UNHEARD, {"owner": "a"}), ("claim", 6, (2, 2, 16), B)],
]
BAD_TASKS = [
    [("claim", 9, (2, 2, 19), B)],
    [("claim", 10, (2, 1, 20), B)],
    [("claim", 10, (1, 2, 20), B)],
    [("complete", 5, False, {"fence": 1})],
    [("complete", 5, True, {"fence": 7})],
    [("complete", 5, True, {"fence": 1}), ("claim", 6, (2, 2, 16), B)],
    [("fail", 5, "dead_lettered", {"fence": 1})],
    [("fail", 5, "requeued", {"fence": 1}), ("claim", 6, None, B)],
    [("heartbeat", 10, 30, {"fence": 1, "lease": 20})],
    [("heartbeat", 9, "expired", {"fence": 1, "lease": 20})],
    [("defer", 5, True, {"fence": 1, "delay": 5}), ("claim", 9, (2, 1, 19), B)],
    [("defer", 5, True, {"fence": 1, "delay": 5}), ("claim", 12, None, B)],
    [("defer", 5, True, {"fence": 1, "delay": 5}), ("claim", 12, (2, 2, 22), B)],
    [("cancel", 5, True, {}), ("complete", 6, True, {"fence": 1})],
    [("cancel", 5, True, {}), ("claim", 11, (2, 2, 21), B)],
    [("cancel", 5, False, {})],
    [("claim", 10, (2, 2, 20), B), ("claim", 20, (3, 3, 30), B)],
]


@pytest.mark.parametrize("then", GOOD_TASKS)
def test_what_tasks_do_is_explained(task: Calls, then: list[tuple[str, int, Any, dict[str, Any]]]) -> None:
    for verb, at, reply, args in then:
        task(at, at, verb, reply, **args)
    assert not task.problem


@pytest.mark.parametrize("then", BAD_TASKS)
def test_what_tasks_never_do_is_found(task: Calls, then: list[tuple[str, int, Any, dict[str, Any]]]) -> None:
    for verb, at, reply, args in then:
        task(at, at, verb, reply, **args)
    assert task.problem


@pytest.mark.parametrize("model", [Claims(), Tasks(2)])
def test_what_a_cancelled_call_took_goes_back_uncounted(model: Model) -> None:
    calls = Calls(model)
    tasks = isinstance(model, Tasks)
    if tasks:
        calls(0, 0, "spawn", None)
    verb, undo = ("claim", "give_back") if tasks else ("acquire", "undo")
    taken = calls(0, 4, verb, owner="a", lease=20)
    calls(1, 4, undo, after=taken, entered=taken.number)
    calls(5, 5, verb, (2, 1, 15) if tasks else ("claim", 2, 15, 1, None), owner="b", lease=10)
    assert not calls.problem
    calls.ops[-1].reply = (2, 2, 15) if tasks else ("claim", 2, 15, 2, "a")
    assert calls.problem


class Server:
    """A lock that can't be wrong: used by one call at a time, at the instant the call runs."""

    def __init__(self) -> None:
        self.owner, self.fence, self.until = "", 0, 0

    def run(self, now: int, verb: str, owner: str, ttl: int) -> Any:
        live = now < self.until
        mine = live and self.owner == owner
        if verb == "owner":
            return self.owner if live else None
        if verb == "acquire":
            if live and not mine:
                return None
            self.fence += not live
            self.owner, self.until = owner, now + ttl
            return self.fence, self.until
        if mine:
            self.until = now + ttl if verb == "renew" else 0
        return mine


def random_history(seed: int, calls: int) -> list[Op]:
    """Made from calls that ran one by one, so there is an order; each seems to have taken a while around that."""
    dice, server, ops = random.Random(seed), Server(), Calls()
    now = 1000
    for _ in range(calls):
        now += dice.choice([0, 0, 1, 3])
        verb, owner, ttl = (
            dice.choice(["acquire", "acquire", "release", "renew", "owner"]),
            dice.choice("abc"),
            dice.choice([2, 20]),
        )
        args: dict[str, Any] = {} if verb == "owner" else {"owner": owner} if verb == "release" else {"owner": owner, "ttl": ttl}
        reply = server.run(now, verb, owner, ttl)
        op = ops(now - dice.random() * 5, now + dice.random() * 5, verb, reply, **args)
        if dice.random() < 0.05 and verb != "owner":
            op.reply, op.returned, op.latest = UNHEARD, op.returned + 0.02, op.latest + 20
    return ops.ops


@pytest.mark.parametrize("seed", range(10))
def test_every_order_that_there_was_is_found(seed: int) -> None:
    assert explain(random_history(seed, 200), Locks()) is None


@pytest.mark.parametrize("seed", range(5))
def test_most_spoiled_replies_are_found(seed: int) -> None:
    """Some lies are possible truths; of those told here, all but a few can't be."""
    found = 0
    for spoil in range(5):
        ops = random_history(seed * 100 + spoil, 60)
        liar = next(op for op in ops[30:] if op.verb == "acquire" and isinstance(op.reply, tuple))
        liar.reply = (liar.reply[0] - 1, liar.reply[1])
        found += explain(ops, Locks()) is not None
    assert found >= 4


def test_the_bounds_of_a_clock_narrow_with_each_sample() -> None:
    clock = ServerClock()
    clock.sample(1.000, 5001, 1.002)
    assert (clock.earliest(2.0), clock.latest(2.0)) == (5997, 6004)
    clock.sample(1.0009, 5001, 1.0011)
    assert (clock.earliest(2.0), clock.latest(2.0)) == (5997, 6004)
    clock.sample(3.0001, 7001, 3.0002)
    assert (clock.earliest(2.0), clock.latest(2.0)) == (5998, 6004)
    assert clock.latest(END) == 1 << 53


def test_a_history_keeps_what_was_told_and_what_was_not() -> None:
    history = History()
    history.clock.sample(0.0, 0, 0.0)
    first = history.call("c", "k", "acquire", owner="a", ttl=5)
    history.told(first, None)
    second = history.call("c", "j", "release", owner="a")
    history.also(first, 2)
    keys = history.keys()
    assert [op.reply for op in keys["k"]] == [None, UNHEARD, UNHEARD]
    assert [op.returned == END for op in (first, second)] == [False, True]
    history.closed([second])
    assert first.returned <= second.returned < END
