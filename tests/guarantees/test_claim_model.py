"""Claims against a model that fits on a page or two; the server's clock is moved by the test.

LOCKBEAT_TEST_EXAMPLES=1000 looks longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import fakeredis
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from lockbeat import Busy, Claim, Done
from lockbeat.store import results
from lockbeat.store.rows import Row
from tests.conftest import CHOSEN
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
HOLDS = st.sampled_from([0, 0.5, 30, 100])

Place = tuple[str, str]


@dataclass
class Unit:
    """A unit of work."""

    state: str = "new"
    """new, claimed or ended."""
    owner: str = ""
    fence: int = 0
    """Of the last claim."""
    until_ms: int = 0
    """claimed: when it runs out."""
    attempt: int = 0
    """Which it is; ended: how many count."""
    previous: str | None = None
    error: str | None = None
    done_until_ms: int = 0
    done: tuple[str, Any, int] = ("", None, 0)
    """By whom, with what result, and when."""
    counted_until_ms: int = 0
    """When the attempts of a claim that ended stop to count."""
    token: str = ""
    """The call that acquired it."""
    ends: set[str] = field(default_factory=set)
    """Calls that ended a claim of it."""


class ClaimsFollowTheModel(Stepped):
    def __init__(self) -> None:
        super().__init__()
        self.send = self.lb.store.call_row
        self.lb.store.call, self.lb.store.call_row = self.call, self.call_row
        self.calls: list[tuple[str, int, Any, Any, int]] = []
        self.called_ms: list[int] = []
        self.units: dict[Place, Unit] = {}
        self.claims: list[Claim] = []
        self.stats = dict.fromkeys(
            ("acquired", "contended", "took_over", "completed", "failed", "released", "renewed", "expired"), 0
        )

    async def call(self, name: str, shard: int, /, *, lease: float = math.inf, **args: Any) -> Any:
        return await self.call_row(self.lb.store.row(name, **args), shard, lease=lease)

    async def call_row(self, row: Row, shard: int, *, lease: float = math.inf) -> Any:
        """What a verb sends is written down, to be sent again."""
        reply = await self.send(row, shard, lease=lease)
        self.calls.append((row.script, shard, row, reply, self.now_ms))
        self.called_ms.append(self.now_ms)
        return reply

    def unit(self, place: Place) -> Unit:
        return self.units.setdefault(place, Unit())

    def live(self, unit: Unit) -> bool:
        return unit.state == "claimed" and unit.until_ms > self.now_ms

    def ran_out(self, unit: Unit) -> bool:
        return unit.state == "claimed" and unit.until_ms <= self.now_ms

    # -- what each verb does

    def grant(self, unit: Unit, owner: str, token: str, lease_ms: int) -> None:
        """It is free, or ran out."""
        if self.ran_out(unit):
            unit.attempt, unit.previous = unit.attempt + 1, unit.owner
            self.stats["expired"] += 1
            self.stats["took_over"] += 1
        else:
            if unit.counted_until_ms <= self.now_ms:
                unit.attempt, unit.error = 0, None
            unit.attempt, unit.previous = unit.attempt + 1, None
            self.stats["acquired"] += 1
        unit.state, unit.owner, unit.until_ms, unit.token = "claimed", owner, self.now_ms + lease_ms, token

    def end(self, unit: Unit, how: str, call: str, attempts: int, counted_ms: int) -> None:
        unit.state, unit.attempt, unit.previous = "ended", attempts, None
        unit.counted_until_ms, unit.done_until_ms = self.now_ms + counted_ms, 0
        unit.ends.add(call)
        self.stats[how] += 1

    def mine(self, unit: Unit, claim: Claim) -> bool:
        return unit.state == "claimed" and (unit.owner, unit.fence) == (claim.owner, claim.fence)

    def check_grant(self, place: Place, claim: Claim) -> None:
        unit = self.unit(place)
        assert claim.fence > unit.fence
        unit.fence = claim.fence
        self.check_claim(place, claim)

    def check_claim(self, place: Place, claim: Claim) -> None:
        unit = self.unit(place)
        assert (claim.queue, claim.key) == place
        assert (claim.owner, claim.fence, claim.attempt) == (unit.owner, unit.fence, unit.attempt)
        assert (round(claim.expires_at * 1000), claim.previous_owner, claim.last_error) == (
            unit.until_ms,
            unit.previous,
            unit.error,
        )
        assert claim.outcome == ("took_over" if unit.previous else "acquired")

    # -- the verbs

    @initialize(lease=LEASES)
    def start(self, lease: float) -> None:
        """Not every example claims by itself."""
        self.acquire("q", "k", "a", lease, False)

    @rule(queue=QUEUES, key=KEYS, owner=OWNERS, lease=LEASES, twice=TWICE)
    def acquire(self, queue: str, key: str, owner: str, lease: float, twice: bool) -> None:
        place = (queue, key)
        answer = self.run(self.lb.claims.acquire(key, owner, lease, queue))
        unit, token = self.unit(place), self.calls[-1][2][3]
        if self.live(unit):
            assert answer == Busy(key, queue, unit.owner, unit.until_ms / 1000)
        elif unit.done_until_ms > self.now_ms:
            by, result, at_ms = unit.done
            assert answer == Done(key, queue, by, result, at_ms / 1000, unit.done_until_ms / 1000)
        else:
            self.grant(unit, owner, token, round(lease * 1000))
            assert isinstance(answer, Claim)
            self.check_grant(place, answer)
            self.claims.append(answer)
            self.repeat(twice)
            return
        self.stats["contended"] += 1
        self.repeat(twice)

    def claim(self, which: int) -> Claim:
        newest = [one for one in self.claims if self.mine(self.unit((one.queue, one.key)), one)]
        some = newest if newest and which < 8 else self.claims
        return some[which % len(some)]

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, lease=LEASES, twice=TWICE)
    def renew(self, which: int, lease: float, twice: bool) -> None:
        claim = self.claim(which)
        unit = self.unit((claim.queue, claim.key))
        mine = self.mine(unit, claim) and self.live(unit)
        assert self.run(self.lb.claims.renew(claim, lease)) is mine
        if mine:
            unit.until_ms = self.now_ms + round(lease * 1000)
            self.stats["renewed"] += 1
        self.repeat(twice)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, result=st.sampled_from([None, 1, {"rows": [2**60]}]), hold=HOLDS, twice=TWICE)
    def complete(self, which: int, result: Any, hold: float, twice: bool) -> None:
        claim = self.claim(which)
        unit = self.unit((claim.queue, claim.key))
        mine = self.mine(unit, claim)
        assert self.run(self.lb.claims.complete(claim, result, hold)) is mine
        if mine:
            self.end(unit, "completed", self.calls[-1][2][4], 0, round(hold * 1000))
            unit.done, unit.done_until_ms, unit.error = (unit.owner, result, self.now_ms), self.now_ms + round(hold * 1000), None
        self.repeat(twice)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, error=st.sampled_from(["broken", "\xff\n"]), twice=TWICE)
    def fail(self, which: int, error: str, twice: bool) -> None:
        claim = self.claim(which)
        unit = self.unit((claim.queue, claim.key))
        mine = self.mine(unit, claim)
        assert self.run(self.lb.claims.fail(claim, error)) is mine
        if mine:
            self.end(unit, "failed", self.calls[-1][2][4], unit.attempt, WEEK_MS)
            unit.error = error
        self.repeat(twice)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, twice=TWICE)
    def release(self, which: int, twice: bool) -> None:
        claim = self.claim(which)
        unit = self.unit((claim.queue, claim.key))
        mine = self.mine(unit, claim) and self.live(unit)
        assert self.run(self.lb.claims.release(claim)) is mine
        if mine:
            self.end(unit, "released", self.calls[-1][2][4], unit.attempt - 1, WEEK_MS if unit.attempt > 1 else 0)
        self.repeat(twice)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, owner=OWNERS)
    def end_it_in_another_name(self, which: int, owner: str) -> None:
        claim = self.claim(which)
        other = replace(claim, owner=owner) if owner != claim.owner else replace(claim, fence=claim.fence + 1000)
        for verb in (self.lb.claims.complete(other), self.lb.claims.fail(other, "x"), self.lb.claims.release(other)):
            assert self.run(verb) is False
        assert self.run(self.lb.claims.renew(other, 60)) is False

    def release_all(self, owner: str) -> None:
        held = [unit for unit in self.units.values() if self.live(unit) and unit.owner == owner]
        assert self.run(self.lb.claims.release_all(owner)) == len(held)
        for unit in held:
            self.end(unit, "released", "", unit.attempt - 1, WEEK_MS if unit.attempt > 1 else 0)

    def cleanup(self, _: str) -> None:
        over = [unit for unit in self.units.values() if self.ran_out(unit)]
        assert self.run(self.lb.claims.cleanup()) == len(over)
        for unit in over:
            self.end(unit, "expired", "", 0, 0)
            unit.error = None

    def let_a_week_pass(self, _: str) -> None:
        """Then attempts no longer count. What ran out is ended at once: the store, too, begins to forget it."""
        self.let_pass(WEEK_MS + 60_000)
        self.cleanup("")

    @rule(owner=OWNERS, what=st.sampled_from([release_all, cleanup, let_a_week_pass]))
    def act_on_all(self, owner: str, what: Callable[[ClaimsFollowTheModel, str], None]) -> None:
        what(self, owner)

    def repeat(self, twice: bool) -> None:
        if twice:
            self.repeat_a_call(1)

    @rule(age=st.integers(2, 4))
    def repeat_an_older_call(self, age: int) -> None:
        self.repeat_a_call(age)

    def repeat_a_call(self, age: int) -> None:
        """It gets its first outcome, or, where there was nothing to keep, whatever a new call would get."""
        acting = [
            call for call in self.calls if call[0].removeprefix("claim/") in ("acquire", "renew", "complete", "fail", "release")
        ]
        if len(acting) < age or acting[-age][4] < self.now_ms - REPEATED_MS:
            return
        script, shard, args, first, _ = acting[-age]
        reply = self.run(self.send(args, shard))
        place = args[0], args[1]
        unit, verb = self.unit(place), script.removeprefix("claim/")
        if verb == "acquire":
            self.repeat_acquire(place, args[2], args[3], args[4], reply)
        elif verb == "renew":
            assert first == reply or first <= 0 >= reply
        else:
            call = args[4]
            assert (reply == 1) is (call in unit.ends)
            assert first == reply or first <= 0 >= reply

    def repeat_acquire(self, place: Place, owner: str, token: str, lease_ms: int, reply: Any) -> None:
        unit = self.unit(place)
        if unit.state == "claimed" and unit.token == token:
            assert (reply[0], reply[4], reply[5]) == (1, unit.fence, unit.until_ms)
        elif self.live(unit):
            assert (reply[0], reply[1].decode(), reply[2]) == (results.BUSY, unit.owner, unit.until_ms)
        elif unit.done_until_ms > self.now_ms:
            assert (reply[0], reply[3]) == (results.REMEMBERED, unit.done_until_ms)
        else:
            self.grant(unit, owner, token, lease_ms)
            assert reply[0] == 1
            assert reply[4] > unit.fence
            unit.fence = reply[4]
            return
        self.stats["contended"] += reply[0] != 1  # a refusal that is asked for again counts again

    @rule(milliseconds=st.sampled_from([1, 499, 500, 1000, 3249, 3250, 9_999, 30_000, 61_000, 300_000]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.let_pass(milliseconds)

    @precondition(lambda self: any(map(self.live, self.units.values())))
    @rule(early=st.sampled_from([0, 0, 1]))
    def let_a_claim_run_out(self, early: int) -> None:
        """To the millisecond, or one less."""
        self.let_pass(max(min(unit.until_ms for unit in self.units.values() if self.live(unit)) - self.now_ms - early, 0))

    # -- what is always so

    @invariant()
    def the_store_shows_what_the_model_holds(self) -> None:
        async def look() -> list[Claim | None]:
            return await asyncio.gather(*(self.lb.claims.is_claimed(key, queue) for queue, key in self.units))

        for (place, unit), found in zip(self.units.items(), self.run(look()), strict=True):
            assert (found is not None) is self.live(unit)
            if found:
                self.check_claim(place, found)

    @invariant()
    def everything_is_counted_once(self) -> None:
        stats = self.run(self.lb.claims.stats())
        assert {name: getattr(stats, name) for name in self.stats} == self.stats
        assert stats.attempts == stats.acquired + stats.contended + stats.took_over
        claimed = sum(unit.state == "claimed" for unit in self.units.values())
        assert stats.acquired + stats.took_over == stats.completed + stats.failed + stats.released + stats.expired + claimed

    @rule(owner=OWNERS)
    def look_around(self, owner: str) -> None:
        claims = self.lb.claims
        for queue in ("q", "q\xff"):
            live = {key: unit for (where, key), unit in self.units.items() if where == queue and self.live(unit)}
            listed = self.run(claims.list(queue))
            assert [(claim.key, claim.owner) for claim in listed] == sorted((key, unit.owner) for key, unit in live.items())
            assert self.run(claims.active(queue)) == len(live)
            for (where, key), unit in self.units.items():
                if where == queue and unit.fence:
                    mine = self.live(unit) and unit.owner == owner
                    assert self.run(claims.owns(key, owner, unit.fence, queue)) is mine
                    assert bool(self.run(claims.get(key, owner, queue))) is mine

        self.what_ran_out_is_found_the_oldest_first()

    def what_ran_out_is_found_the_oldest_first(self) -> None:
        over = sorted(unit.until_ms for unit in self.units.values() if self.ran_out(unit))
        expired = self.run(self.lb.claims.expired())
        assert [round(claim.expires_at * 1000) for claim in expired] == over
        for claim in expired:
            self.check_claim((claim.queue, claim.key), claim)
        if over:
            assert round(self.run(self.lb.claims.expired(1))[0].expires_at * 1000) == over[0]

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
