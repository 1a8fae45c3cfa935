"""Read by mypy alone: what it sees of lockbeat.sync is concrete. A signature that were Any would leave the ignores unused."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from lockbeat import Busy, Claim, Done, FencedValue, JobState, Lease, Put, Spawned, Task, TaskInfo
from lockbeat.sync import Beat, ClaimHandle, HeldLease, Lock, Lockbeat

if TYPE_CHECKING:

    def locks(lb: Lockbeat) -> None:
        assert_type(lb.locks.try_acquire("key", "me", 30), Lease | None)
        assert_type(lb.locks.list(owner="me"), list[Lease])
        assert_type(lb.lock("key", ttl=30), Lock)
        with lb.lock("key") as lease:
            assert_type(lease, HeldLease)
            assert_type(lease.fence, int)
        lb.locks.try_acquire("key", "me", "30")  # type: ignore[arg-type]
        lb.locks.try_acquire("key")  # type: ignore[call-arg]
        lb.lock("key", tll=30)  # type: ignore[call-arg]
        lb.lock("key", on_loss=lambda loss: loss.nothing)  # type: ignore[attr-defined]

    def claims(lb: Lockbeat) -> None:
        assert_type(lb.claims.acquire("key", "me"), Claim | Busy | Done)
        with lb.claims.hold("key") as claim:
            assert_type(claim, ClaimHandle)
            claim.complete(hold="1")  # type: ignore[arg-type]

    def others(lb: Lockbeat) -> None:
        assert_type(lb.tasks.spawn("name", {"a": 1}, queue="mail", delay=3), Spawned)
        assert_type(lb.tasks.claim("queue", "me"), list[Task])
        assert_type(lb.tasks.wait("id", timeout=1), TaskInfo)
        assert_type(lb.jobs.get("name"), JobState)
        assert_type(lb.jobs.put("name", None, params=1), Put)
        assert_type(lb.fenced.get("name"), FencedValue | None)
        lb.tasks.spawn("name", quue="mail")  # type: ignore[call-arg]
        lb.fenced.set("name", 1)  # type: ignore[call-arg]

    def beat(beat: Beat) -> None:
        assert_type(beat.spawn("name", 1), Spawned)
        assert_type(beat.jobs.get("name"), JobState)
        with beat.lifespan():
            beat.start(wait=True)  # type: ignore[call-arg]
