"""Several writers put, apply, prune, delete and declare, and replies are lost: the store has what a plain dict would."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lockbeat import Every, Job, Lockbeat
from lockbeat.errors import Conflict
from lockbeat.jobs import applying
from tests.beats import scheduler
from tests.conftest import CHOSEN
from tests.stepped import Stepped, played

NAMES = st.sampled_from(["a", "a b", "ab", "b", "c", "é", "z"])
ORIGINS = st.sampled_from(["billing", "bill", "api"])
SETS = st.dictionaries(NAMES, st.integers(0, 2), max_size=6)


class Known:
    """A job as the model has it."""

    def __init__(self, origin: str, priority: int) -> None:
        self.origin, self.priority = origin, priority

    def __repr__(self) -> str:
        return f"{self.origin} {self.priority}"


def job(name: str, priority: int) -> Job:
    return Job.declare(name, Every(60), function="send", params={"name": name}, priority=priority)


class Written(Stepped):
    """Two writers and a beat; each call of a script may be repeated, as when its reply was lost."""

    def __init__(self) -> None:
        super().__init__()
        self.other = Lockbeat(self.lb.url, namespace="model")
        self.run(self.other.__aenter__())
        self.most, applying.MOST = applying.MOST, 2
        self.abreast, applying.ABREAST = applying.ABREAST, 1
        self.known: dict[str, Known] = {}
        self.lost = 0
        self.before_step: Any = None
        self.steps = 0
        self.stepped: list[str] = []
        """The names in the steps that were taken, while another is to come in between."""
        for lb in (self.lb, self.other):
            lb.store.call = self.losing(lb.store.call, lb is self.lb)  # type: ignore[method-assign]

    def losing(self, call: Any, mine: bool) -> Any:
        """A call whose reply is lost every so often: it is made again, and has to answer the same."""

        async def calls(name: str, shard: int, /, **args: Any) -> Any:
            if name == "job/apply" and mine and self.before_step is not None and args["number"] > 0:
                self.steps += 1
                await self.before_step(self.steps)
                self.stepped += args["jobs"][::7]
            first = await call(name, shard, **args)
            self.lost = (self.lost * 5 + 1) % 7
            if name.startswith("job/") and self.lost % 2:
                assert await call(name, shard, **args) == first or name == "job/forget"
            return first

        return calls

    @rule(
        name=NAMES,
        origin=ORIGINS,
        priority=st.integers(0, 2),
        expects=st.sampled_from(["", "right", "wrong", "none"]),
        take=st.booleans(),
    )
    def put(self, name: str, origin: str, priority: int, expects: str, take: bool) -> None:
        known = self.known.get(name)
        right = self.run(self.lb.jobs.get(name)).rev if known else ""
        if_rev = {"": None, "right": right, "wrong": "x.y", "none": ""}[expects]
        allowed = (known is None or known.origin == origin or take) and if_rev in (None, right)
        made = job(name, priority)
        options = {"function": "send", "params": made.params, "priority": priority}
        writer = (self.lb, self.other)[priority % 2]
        putting = writer.jobs.put(name, made.trigger, origin=origin, if_rev=if_rev, take_over=take, **options)
        if not allowed:
            with pytest.raises(Conflict):
                self.run(putting)
            return
        said = self.run(putting)
        same = known is not None and (known.origin, known.priority) == (origin, priority)
        assert said.outcome == ("added" if known is None else "unchanged" if same else "changed")
        self.known[name] = Known(origin, priority)

    @rule(wanted=SETS, origin=ORIGINS, prune=st.booleans(), dry=st.booleans(), take=st.booleans())
    def apply(self, wanted: dict[str, int], origin: str, prune: bool, dry: bool, take: bool) -> None:
        applying_ = self.lb.jobs.apply(self.jobs(wanted), origin=origin, prune=prune, dry_run=dry, take_over=take)
        if not take and any(self.known[name].origin != origin for name in wanted if name in self.known):
            with pytest.raises(Conflict):
                self.run(applying_)
            return
        done = self.run(applying_)
        after = self.applied(wanted, origin, prune)
        for name in wanted:
            was, now = self.known.get(name), after[name]
            kind = "added" if was is None else "unchanged" if repr(was) == repr(now) else "changed"
            assert name in getattr(done, kind)
        assert set(done.removed) == self.known.keys() - after.keys()
        assert len(done.added) + len(done.changed) + len(done.unchanged) == len(wanted)
        if not dry:
            self.known = after

    def jobs(self, wanted: dict[str, int]) -> list[Job]:
        return [job(name, priority) for name, priority in wanted.items()]

    def applied(self, wanted: dict[str, int], origin: str, prune: bool) -> dict[str, Known]:
        kept = {name: known for name, known in self.known.items() if not prune or known.origin != origin}
        return kept | {name: Known(origin, priority) for name, priority in wanted.items()}

    @rule(first=SETS, second=SETS, at=st.integers(1, 4))
    def apply_while_another_applies(self, first: dict[str, int], second: dict[str, int], at: int) -> None:
        """The second begins when the first is about to take that step, and is done before it goes on: the second's set stands."""
        came, took = False, list[str]()

        async def come(step: int) -> None:
            nonlocal came
            if step == at:
                came = True
                took.extend(self.stepped)
                await self.other.jobs.apply(self.jobs(second), origin="billing", prune=True, take_over=True)

        self.before_step, self.steps, self.stepped = come, 0, []
        try:
            self.run(self.lb.jobs.apply(self.jobs(first), origin="billing", prune=True, take_over=True))
        except Conflict:
            assert came
        else:
            assert not came or first == second
        self.before_step = None
        if not came:
            self.known = self.applied(first, "billing", True)
            return
        # What the first took over from others before it was overtaken is billing's, and went with the second.
        self.known = {name: known for name, known in self.known.items() if name not in took}
        self.known = self.applied(second, "billing", True)

    @precondition(lambda self: self.known)
    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        assert self.run(self.other.jobs.delete(name)) is (self.known.pop(name, None) is not None)

    @rule(declared=SETS)
    def declare(self, declared: dict[str, int]) -> None:
        """An instance starts: what others have stays theirs."""
        self.run(scheduler(self.lb, *self.jobs(declared)).register())
        for name, priority in declared.items():
            if name not in self.known or self.known[name].origin == "code":
                self.known[name] = Known("code", priority)

    @rule()
    def look(self) -> None:
        found = {state.job.name: state.job for state in self.run(self.lb.jobs.list())}
        assert {name: f"{one.origin} {one.priority}" for name, one in found.items()} == {
            name: repr(known) for name, known in self.known.items()
        }

    def at_the_end(self) -> None:
        applying.MOST, applying.ABREAST = self.most, self.abreast
        self.look()
        for origin in ("billing", "bill", "api"):
            removed = self.run(self.lb.jobs.apply([], origin=origin, prune=True)).removed
            assert set(removed) == {name for name, known in self.known.items() if known.origin == origin}
        self.run(self.other.__aexit__(None, None, None))


if "memory" in CHOSEN:
    TestTheStoreHasWhatADictWouldWhoeverWrites = played(Written, 60)
