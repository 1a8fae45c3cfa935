"""What spreads instances is not what a program seeds: they stay spread, and its numbers are the same with us as without."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from lockbeat import Lockbeat, StoreUnavailable
from lockbeat.connection.outage import Pace
from lockbeat.jobs.standby import Standby
from lockbeat.process import chance
from tests import servers

DUE = 1_800_000_000_000


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = random.getstate()
    yield
    random.setstate(before)


def look() -> float:
    """After how long an instance looks that was second before."""
    standby = Standby()
    standby.after(DUE)
    standby.asked(DUE + 1, None, DUE + 1000)
    return standby.after(DUE)


def retry() -> float:
    """After how long it tries again that failed to connect."""
    pace = Pace()
    pace.failed()
    return pace._not_before - time.monotonic()


@pytest.mark.parametrize("pause", [look, retry, lambda: chance.between(0, 1)])
def test_instances_that_seed_random_alike_are_spread(pause: Callable[[], float]) -> None:
    def of_one_instance() -> float:
        random.seed(1)
        return pause()

    assert len({round(of_one_instance(), 4) for _ in range(20)}) > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # as all users who fork beside threads are told
def test_forked_children_are_spread() -> None:
    drawn = set()
    for _ in range(5):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(writing, repr(chance.between(0, 1)).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            drawn.add(pipe.read())
        os.waitpid(pid, 0)
    assert len(drawn) == 5


async def test_a_program_s_own_sequence_is_left_alone() -> None:
    """Through an outage: a call that is repeated, and connections that are tried again."""
    random.seed(1)
    before = random.getstate()
    lb = Lockbeat(f"redis://127.0.0.1:{servers.free_port()}", timeout=0.5)
    with pytest.raises(StoreUnavailable):
        async with lb:
            await lb.locks.try_acquire("door", "me", 60)
    assert random.getstate() == before
