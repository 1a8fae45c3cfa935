"""Claims against the model that their histories are judged by, here with the server's clock known to the millisecond.

LOCKBEAT_TEST_EXAMPLES=1000 looks longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import fakeredis
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from lockbeat import Busy, Claim, Done
from tests.conftest import CHOSEN
from tests.history import Op
from tests.lease_models import Claims, Held, Key
from tests.stepped import Stepped, played

EXAMPLES = int(os.environ.get("LOCKBEAT_TEST_EXAMPLES", "12"))
WEEK_MS = 7 * 86_400_000
REPEATED_MS = 20_000
"""Nobody repeats a call later, and the store need not know it any more."""
QUEUES = st.sampled_from(["q", "q", "q", "q\xff"])
KEYS = st.sampled_from(["k", "k", "kk"])
WHICH = st.integers(0, 9)
"""Of the claims that are the newest of their keys; 8 and 9: of all that there have been."""
TWICE = st.booleans()
"""The reply of the call is lost, and it is sent again."""
OWNERS = st.sampled_from(["a", "ab", "a\xff"])
LEASES = st.sampled_from([0.001, 0.5, 1, 3.25, 60])
REMEMBERED = st.sampled_from([0, 0.5, 30, 100])

Place = tuple[str, str]


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def place_of(claim: Claim) -> Place:
    return claim.queue, claim.key


class ClaimsFollowTheModel(Stepped):
    def __init__(self) -> None:
        super().__init__()
        self.model = Claims()
        self.states: dict[Place, Key] = {}
        self.newest: dict[Place, Claim] = {}
        self.claims: list[Claim] = []
        self.errors: dict[Place, str] = {}
        self.done: dict[Place, tuple[str, Any, int]] = {}
        """By whom, with what result, and when."""
        self.stats: Counter[str] = Counter()
        self.number = 0
        self.calls: list[tuple[int, str, Callable[[], None]]] = []
        """When it was made, its id, and what makes it again."""
        self.fresh, self.call = self.lb.store.new_call, ""
        self.lb.store.new_call = self.new_call  # type: ignore[method-assign]
        self.again = False

    def new_call(self) -> str:
        """An id that no call had; or, for one that is repeated, that which it had."""
        self.call = self.call if self.again else self.fresh()
        return self.call

    def told(self, place: Place, verb: str, reply: Any, number: int = 0, **args: Any) -> None:
        """The model allows that reply. As nothing is unknown, it allows one state after it."""
        op = Op(str(place), "", verb, args, 0, 0, reply, self.now_ms, self.now_ms, number=number)
        [self.states[place]] = {*self.model.step(self.states.get(place, self.model.initial), op)}

    def held(self, *, live: bool) -> dict[Place, Held]:
        """What is claimed, and is live or has run out."""
        held = {place: state.held for place, state in self.states.items() if state.held}
        return {place: one for place, one in held.items() if (one.ends_by > self.now_ms) is live}

    def sent(self, once: Callable[[], None], twice: bool) -> None:
        once()
        self.calls.append((self.now_ms, self.call, once))
        if twice:
            self.repeat_a_call(1)

    @rule(age=st.integers(2, 4))
    def repeat_a_call(self, age: int) -> None:
        if len(self.calls) >= age and self.calls[-age][0] >= self.now_ms - REPEATED_MS:
            _, self.call, once = self.calls[-age]
            self.again = True
            once()
            self.again = False

    # -- the verbs

    @initialize(lease=LEASES)
    def start(self, lease: float) -> None:
        """Not every example claims by itself."""
        self.acquire("q", "k", "a", lease, False)

    @rule(queue=QUEUES, key=KEYS, owner=OWNERS, lease=LEASES, twice=TWICE)
    def acquire(self, queue: str, key: str, owner: str, lease: float, twice: bool) -> None:
        self.number += 1
        place, number = (queue, key), self.number

        def once() -> None:
            held = self.states.get(place, self.model.initial).held
            answer = self.run(self.lb.claims.acquire(key, owner, lease, queue))
            if held and held.token == number:  # it gets what it was given; nobody has claimed it since
                assert isinstance(answer, Claim)
                assert answer == replace(self.newest[place], expires_at=held.ends_by / 1000)
                return
            self.told(place, "acquire", self.heard(place, answer, lease), number, owner=owner, lease=ms(lease))

        self.sent(once, twice)

    def heard(self, place: Place, answer: Claim | Busy | Done, lease: float) -> tuple[Any, ...]:
        """The answer to acquire, as the model has it; it looks at the rest of it."""
        assert (answer.queue, answer.key) == place
        if isinstance(answer, Claim):
            assert ms(answer.expires_at) == self.now_ms + ms(lease)
            assert answer.outcome == ("took_over" if answer.previous_owner else "acquired")
            assert answer.last_error == self.errors.get(place)
            self.stats[answer.outcome] += 1
            self.stats["expired"] += answer.outcome == "took_over"
            self.newest[place] = answer
            self.claims.append(answer)
            return "claim", answer.fence, ms(answer.expires_at), answer.attempt, answer.previous_owner
        self.stats["contended"] += 1  # a refusal that is asked for again counts again
        if isinstance(answer, Busy):
            return "busy", answer.owner, ms(answer.expires_at)
        assert (answer.owner, answer.result, ms(answer.completed_at)) == self.done[place]
        return "done", answer.owner, ms(answer.until)

    def claim(self, which: int) -> Claim:
        held = [state.held.fence for state in self.states.values() if state.held]
        newest = [one for one in self.claims if one.fence in held]
        some = newest if newest and which < 8 else self.claims
        return some[which % len(some)]

    def changed(
        self,
        claim: Claim,
        verb: str,
        call: Callable[[], Coroutine[Any, Any, bool]],
        twice: bool,
        counts: str,
        then: Callable[[], None] = lambda: None,
        **args: Any,
    ) -> None:
        """Call a verb, and `then` note what it changed; repeated it gets its first outcome, and changes nothing."""
        replies: list[bool] = []

        def once() -> None:
            replies.append(self.run(call()))
            assert replies[-1] is replies[0]
            if len(replies) > 1:
                return
            self.told(place_of(claim), verb, replies[0], fence=claim.fence, **args)
            if replies[0]:
                self.stats[counts] += 1
                then()

        self.sent(once, twice)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, lease=LEASES, twice=TWICE)
    def renew(self, which: int, lease: float, twice: bool) -> None:
        claim = self.claim(which)
        self.changed(claim, "renew", lambda: self.lb.claims.renew(claim, lease), twice, "renewed", lease=ms(lease))

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, result=st.sampled_from([None, 1, {"rows": [2**60]}]), remember=REMEMBERED, twice=TWICE)
    def complete(self, which: int, result: Any, remember: float, twice: bool) -> None:
        claim = self.claim(which)

        def then() -> None:
            self.errors.pop(place_of(claim), None)
            self.done[place_of(claim)] = claim.owner, result, self.now_ms

        call = lambda: self.lb.claims.complete(claim, result, remember)  # noqa: E731
        self.changed(claim, "complete", call, twice, "completed", then, hold=ms(remember))

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, error=st.sampled_from(["broken", "\xff\n"]), twice=TWICE)
    def fail(self, which: int, error: str, twice: bool) -> None:
        claim = self.claim(which)
        then = lambda: self.errors.update({place_of(claim): error})  # noqa: E731
        self.changed(claim, "fail", lambda: self.lb.claims.fail(claim, error), twice, "failed", then)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, twice=TWICE)
    def release(self, which: int, twice: bool) -> None:
        claim = self.claim(which)
        self.changed(claim, "release", lambda: self.lb.claims.release(claim), twice, "released")

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, owner=OWNERS)
    def end_it_in_another_name(self, which: int, owner: str) -> None:
        claim = self.claim(which)
        other = replace(claim, owner=owner) if owner != claim.owner else replace(claim, fence=claim.fence + 1000)
        for verb in (self.lb.claims.complete(other), self.lb.claims.fail(other, "x"), self.lb.claims.release(other)):
            assert self.run(verb) is False
        assert self.run(self.lb.claims.renew(other, 60)) is False

    @rule(owner=OWNERS)
    def release_all(self, owner: str) -> None:
        mine = [one for one in self.held(live=True).values() if one.owner == owner]
        assert self.run(self.lb.claims.release_all(owner)) == len(mine)
        self.stats["released"] += len(mine)
        for place in self.states:
            self.told(place, "release_all", None, owner=owner)

    @rule()
    def cleanup(self) -> None:
        over = self.held(live=False)
        assert self.run(self.lb.claims.cleanup()) == len(over)
        self.stats["expired"] += len(over)
        for place in self.states:
            self.told(place, "cleanup", None)
        self.errors = {place: error for place, error in self.errors.items() if place not in over}

    @rule()
    def let_a_week_pass(self) -> None:
        """Then attempts no longer count. What ran out is ended at once: the store, too, begins to forget it."""
        self.let_pass(WEEK_MS + 60_000)
        self.cleanup()
        self.errors.clear()
        self.states = {place: state._replace(attempt=0) for place, state in self.states.items()}

    @rule(milliseconds=st.sampled_from([1, 499, 500, 1000, 3249, 3250, 9_999, 30_000, 61_000, 300_000]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.let_pass(milliseconds)

    @precondition(lambda self: self.held(live=True))
    @rule(early=st.sampled_from([0, 0, 1]))
    def let_a_claim_run_out(self, early: int) -> None:
        """To the millisecond, or one less."""
        self.let_pass(max(min(one.ends_by for one in self.held(live=True).values()) - self.now_ms - early, 0))

    # -- what is always so

    def shown(self, *, live: bool) -> dict[Place, Claim]:
        """What is claimed, as the store is to show it."""
        held = self.held(live=live)
        return {place: replace(self.newest[place], expires_at=one.ends_by / 1000) for place, one in held.items()}

    @invariant()
    def the_store_shows_what_the_model_holds(self) -> None:
        async def look() -> list[Claim | None]:
            return await asyncio.gather(*(self.lb.claims.is_claimed(key, queue) for queue, key in self.states))

        shown = self.shown(live=True)
        assert self.run(look()) == [shown.get(place) for place in self.states]

    @invariant()
    def everything_is_counted_once(self) -> None:
        stats = self.run(self.lb.claims.stats())
        names = ("acquired", "contended", "took_over", "completed", "failed", "released", "renewed", "expired")
        assert {name: getattr(stats, name) for name in names} == {name: self.stats[name] for name in names}
        assert stats.attempts == stats.acquired + stats.contended + stats.took_over
        claimed = sum(state.held is not None for state in self.states.values())
        assert stats.acquired + stats.took_over == stats.completed + stats.failed + stats.released + stats.expired + claimed

    @rule(owner=OWNERS)
    def look_around(self, owner: str) -> None:
        claims, live = self.lb.claims, self.shown(live=True)
        for queue in ("q", "q\xff"):
            here = [live[place] for place in sorted(live) if place[0] == queue]
            assert self.run(claims.list(queue)) == here
            assert self.run(claims.active(queue)) == len(here)
        for (queue, key), newest in self.newest.items():
            mine = (queue, key) in live and newest.owner == owner
            assert self.run(claims.owns(key, owner, newest.fence, queue)) is mine
            assert bool(self.run(claims.get(key, owner, queue))) is mine
        over = sorted(self.shown(live=False).values(), key=lambda claim: (claim.expires_at, claim.queue, claim.key))
        assert sorted(self.run(claims.expired()), key=lambda claim: (claim.expires_at, claim.queue, claim.key)) == over
        assert [claim.expires_at for claim in self.run(claims.expired(1))] == [claim.expires_at for claim in over[:1]]

    def at_the_end(self) -> None:
        self.look_around("a")
        for pause_ms in (WEEK_MS + 60_000, 60_000):  # what is swept is remembered for as long as a call may be repeated
            self.let_pass(pause_ms)
            self.run(self.lb.claims.cleanup())
        left = self.left_behind()
        assert not left, f"left behind after a week: {left}"

    def left_behind(self) -> list[str]:
        """What the store still knows of claims; the empty members are its own."""
        left: list[str] = []
        with contextlib.closing(fakeredis.FakeRedis(server=self.server, protocol=2)) as raw:
            for key in raw.scan_iter(match="*}:claim*"):
                name = key.decode().partition("}:")[2]
                if name != "claim:stats":
                    members = raw.hkeys(key) if raw.type(key) == b"hash" else raw.zrange(key, 0, -1)
                    left += [f"{name}: {member!r}" for member in members if member not in (b"", b"\xff\xff")]
        return left


if "memory" in CHOSEN:
    TestClaimsFollowTheModel = played(ClaimsFollowTheModel, EXAMPLES)
