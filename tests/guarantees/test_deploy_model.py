"""Rolling deploys, rollbacks, kills, losses and deletes in any order: a machine that holds the store against a small model."""

from __future__ import annotations

from typing import Any

import fakeredis
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lockbeat.jobs import Job, JobState
from lockbeat.triggers import Every
from tests.deploys import TTL_MS, Instance
from tests.stepped import Stepped, played

VERSIONS: list[tuple[str, dict[str, int]]] = [
    ("-", {"a": 60, "b": 60}),
    ("-", {"a": 120, "c": 60}),
    ("-", {"a": 60, "b": 120, "c": 90}),
    ("1.9", {"a": 30, "b": 60}),
    ("1.10", {"a": 45, "c": 60, "d": 60}),
]
"""Number, and the periods of the jobs, of each version of one program."""
KEYS = ["job", "job:slot", "job:due", "job:order", "version"]
which = st.integers(0, len(VERSIONS) - 1)


def period_of(state: JobState) -> int:
    assert isinstance(state.job.trigger, Every)
    return state.job.trigger.period_ms // 1000


class Deploys(Stepped):
    """Instances of the versions come, go, and give signs of life."""

    def __init__(self) -> None:
        super().__init__()
        self.living: list[tuple[int, Instance]] = []
        self.firsts: list[int] = []
        self.heard: dict[int, int] = {}
        self.lossless = True
        self.raw = fakeredis.FakeRedis(server=self.server)

    def age(self, version: int) -> tuple[Any, ...]:
        """The greater, the newer."""
        number = VERSIONS[version][0]
        return ([] if number == "-" else [int(part) for part in number.split(".")], self.firsts.index(version))

    def lives(self, version: int) -> bool:
        return version in self.heard and self.now_ms <= self.heard[version] + TTL_MS

    def hear(self, version: int) -> None:
        self.let_pass(2)  # so that what is told in turn differs in its time
        if version not in self.firsts:
            self.firsts.append(version)
        self.heard[version] = self.now_ms

    def standing(self) -> dict[str, tuple[int, bool]]:
        """The period of each job, and whether it is retired."""
        states = self.run(self.lb.jobs.list())
        return {state.job.name: (period_of(state), state.retired_at is not None) for state in states}

    @rule(version=which)
    def start(self, version: int) -> None:
        number, periods = VERSIONS[version]
        jobs = [Job.declare(name, Every(period)) for name, period in periods.items()]
        before = self.standing()
        newer = [
            other for other in self.firsts if version in self.firsts and self.lives(other) and self.age(other) > self.age(version)
        ]
        self.hear(version)
        newer = [other for other in self.firsts if other != version and self.lives(other) and self.age(other) > self.age(version)]
        instance = self.run(Instance(self.lb, *jobs, number=number).start())
        self.living.append((version, instance))
        if self.lossless:
            for name in periods:
                if name in before and any(name in VERSIONS[other][1] for other in newer):
                    assert self.standing()[name] == before[name], "a newer version has it, and lives"

    @precondition(lambda self: self.living)
    @rule(at=st.integers(0, 20))
    def sign(self, at: int) -> None:
        version, instance = self.living[at % len(self.living)]
        self.hear(version)
        self.run(instance.sign())

    @precondition(lambda self: self.living)
    @rule(at=st.integers(0, 20))
    def tick(self, at: int) -> None:
        self.run(self.living[at % len(self.living)][1].tick())

    @precondition(lambda self: self.living)
    @rule(at=st.integers(0, 20))
    def kill(self, at: int) -> None:
        del self.living[at % len(self.living)]

    @rule(version=which)
    def kill_all_of(self, version: int) -> None:
        self.living = [(other, instance) for other, instance in self.living if other != version]

    @rule(milliseconds=st.sampled_from([1, 5_000, 29_000, 31_000, 120_000, 601_000, 640_000]))
    def wait(self, milliseconds: int) -> None:
        self.let_pass(milliseconds)

    @rule(key=st.sampled_from(KEYS), alone=st.booleans())
    def lose(self, key: str, alone: bool) -> None:
        """A key is evicted; or a job's part of it."""
        self.lossless = False
        name = self.lb.store.keys.key(0, key)
        if key == "version" or not alone:
            self.raw.delete(name)
        elif key in ("job", "job:slot"):
            self.raw.hdel(name, "a")
        else:
            self.raw.zrem(name, "a")

    @rule(name=st.sampled_from("abcd"))
    def delete(self, name: str) -> None:
        self.lossless = False
        self.run(self.lb.jobs.delete(name))

    @precondition(lambda self: self.living)
    @rule()
    def settle(self) -> None:
        """Everybody who lives has given signs of life for a while."""
        deleted = {name for name in "abcd" if name not in self.standing()}
        for _ in range(5):
            self.let_pass(10_000)
            for version, instance in self.living:
                self.hear(version)
                self.run(instance.tick())
                self.run(instance.sign())
        alive = {version for version, _ in self.living}
        standing = self.standing()
        for name in set("abcd") - deleted:
            declaring = [version for version in alive if name in VERSIONS[version][1]]
            if declaring:
                newest = max(declaring, key=self.age)
                assert standing[name] == (VERSIONS[newest][1][name], False)
            elif name in standing and standing[name][1]:
                assert not any(name in VERSIONS[version][1] for version in alive)
        self.lossless = not deleted


test_the_newest_living_version_decides_and_only_what_nobody_declares_retires = played(Deploys, 40)
