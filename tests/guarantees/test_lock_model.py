"""Locks against the model that their histories are judged by, here with the server's clock known to the millisecond."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from tests.conftest import CHOSEN
from tests.history import Op
from tests.lease_models import Key, Locks
from tests.stepped import Stepped, played

KEYS = st.sampled_from(["k", "k\xff", "kk", "{k}"])
OWNERS = st.sampled_from(["a", "ab", "a\xff"])
TTLS = st.sampled_from([0.001, 0.5, 1, 3.25, 60])


class LocksFollowTheModel(Stepped):
    def __init__(self) -> None:
        super().__init__()
        self.model = Locks()
        self.states: dict[str, Key] = {}
        self.calls = 0

    def told(self, key: str, verb: str, reply: Any, **args: Any) -> None:
        """The model allows that reply. Where nothing is unknown, it allows one state after it."""
        self.calls += 1
        op = Op(key, "", verb, args, 0, 0, reply, self.now_ms, self.now_ms, number=self.calls)
        [self.states[key]] = {*self.model.step(self.states.get(key, self.model.initial), op)}

    def held(self) -> list[tuple[str, str, int | None, int]]:
        """What the model says that is held now: by whom, what, its fence and its end."""
        leases = [(key, state.held) for key, state in self.states.items() if state.held]
        return sorted((held.owner, key, held.fence, held.ends_by) for key, held in leases if held.ends_by > self.now_ms)

    @rule(key=KEYS, owner=OWNERS, ttl=TTLS)
    def try_acquire(self, key: str, owner: str, ttl: float) -> None:
        lease = self.run(self.lb.locks.try_acquire(key, owner, ttl))
        assert lease is None or (lease.key, lease.owner) == (key, owner)
        reply = lease and (lease.fence, round(lease.expires_at * 1000))
        assert lease is None or reply == (lease.fence, self.now_ms + round(ttl * 1000))
        self.told(key, "acquire", reply, owner=owner, ttl=round(ttl * 1000))

    @rule(key=KEYS, owner=OWNERS)
    def release(self, key: str, owner: str) -> None:
        self.told(key, "release", self.run(self.lb.locks.release(key, owner)), owner=owner)

    @rule(key=KEYS, owner=OWNERS, ttl=TTLS)
    def renew(self, key: str, owner: str, ttl: float) -> None:
        self.told(key, "renew", self.run(self.lb.locks.renew(key, owner, ttl)), owner=owner, ttl=round(ttl * 1000))

    @rule(owner=OWNERS)
    def release_all(self, owner: str) -> None:
        mine = [key for holder, key, *_ in self.held() if holder == owner]
        assert self.run(self.lb.locks.release_all(owner)) == len(mine)
        for key in self.states:
            self.told(key, "release_all", None, owner=owner)

    @rule(milliseconds=st.sampled_from([1, 499, 500, 1000, 3249, 3250, 9_999, 10_001, 61_000, 300_000]))
    def let_time_pass(self, milliseconds: int) -> None:
        self.let_pass(milliseconds)

    @invariant()
    def the_store_shows_what_the_model_holds(self) -> None:
        listed = self.run(self.lb.locks.list())
        assert [(lease.owner, lease.key, lease.fence, round(lease.expires_at * 1000)) for lease in listed] == self.held()
        for key in ("k", "kk"):
            owner = self.run(self.lb.locks.owner(key))
            self.told(key, "owner", owner)
            assert self.run(self.lb.locks.is_locked(key)) is (owner is not None)


if "memory" in CHOSEN:
    TestLocksFollowTheModel = played(LocksFollowTheModel, examples=25, steps=20)
