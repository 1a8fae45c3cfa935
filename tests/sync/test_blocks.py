"""Blocks in threads: exclusion, loss, and interruption."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lockbeat.claims import Done
from lockbeat.errors import ClaimBusy, LeaseLost, LockbeatError, LockTimeout
from lockbeat.leases.keeper import GONE, OVERDUE
from lockbeat.sync import Lock, Lockbeat
from lockbeat.sync.turning import CLOSED
from tests.conftest import PATIENCE, only
from tests.sync.conftest import Blocking, hurry, in_thread, until, waiters


def test_a_block_holds_its_lock_until_it_ends(slb: Lockbeat) -> None:
    with slb.lock("k", ttl=30) as lease:
        assert (lease.key, lease.owner) == ("k", slb.owner)
        assert slb.locks.owner("k") == slb.owner
        assert not lease.lost
        lease.check()
        assert lease == slb.locks.holder("k")
    assert not slb.locks.is_locked("k")
    with pytest.raises(LeaseLost, match="its block has ended"):
        lease.check()


def test_an_error_of_the_block_gives_the_lock_back_and_passes_unchanged(slb: Lockbeat) -> None:
    with pytest.raises(RuntimeError, match="my own") as caught, slb.lock("k"):
        raise RuntimeError("my own")
    assert not hasattr(caught.value, "__notes__")
    assert not slb.locks.is_locked("k")


def test_the_blocks_of_many_threads_exclude_each_other(blocking: Blocking, threads: ThreadPoolExecutor) -> None:
    """Of one client, and of another."""
    inside: list[int] = []
    most = 0

    def work(lb: Lockbeat, number: int) -> None:
        nonlocal most
        with lb.lock("k", wait=PATIENCE):
            inside.append(number)
            most = max(most, len(inside))
            inside.remove(number)

    several = [blocking(), blocking()]
    for future in [threads.submit(work, several[number % 2], number) for number in range(60)]:
        future.result(PATIENCE)
    assert most == 1


def test_a_wait_that_is_over_raises_as_the_asynchronous_one_does(slb: Lockbeat) -> None:
    with slb.lock("k"):
        for wait in (0, 0.02):
            with pytest.raises(LockTimeout), slb.lock("k", wait=wait):
                pass


def test_whoever_waits_is_woken_by_the_release(slb: Lockbeat, threads: ThreadPoolExecutor) -> None:
    def wait() -> int:
        with slb.lock("k") as lease:
            return lease.fence

    with slb.lock("k") as lease:
        waiting = threads.submit(wait)
        until(lambda: waiters(slb), "it waits")
    assert waiting.result(PATIENCE) > lease.fence


def test_a_handle_is_for_one_block_at_a_time(slb: Lockbeat) -> None:
    lock = slb.lock("k")
    leases = [lock.lease]
    with lock as lease:
        with pytest.raises(LockbeatError, match="in use"):
            lock.__enter__()
        leases.append(lock.lease)
    assert [*leases, lock.lease] == [None, lease, None]
    with lock as again:
        again.check()


def lose(lb: Lockbeat, lock: Lock) -> None:
    lb.locks.release_all(lb.owner)  # as if the store had forgotten it
    hurry(lb)
    assert lock.lost.wait(PATIENCE)


def test_a_block_that_loses_its_lock_is_told_in_three_ways_and_fails_at_its_end(slb: Lockbeat) -> None:
    told: list[LeaseLost] = []
    called = threading.Event()

    def on_loss(loss: LeaseLost) -> None:
        told.append(loss)
        assert slb.locks.owner("k") is None  # it may block
        called.set()

    lock = slb.lock("k", ttl=30, on_loss=on_loss)
    with pytest.raises(LeaseLost) as caught, lock as lease:
        lose(slb, lock)
        assert lease.lost
        with pytest.raises(LeaseLost, match=GONE):
            lease.check()
        assert called.wait(PATIENCE)
    assert [caught.value.reason, told[0].reason] == [GONE, GONE]
    assert caught.value.fence == told[0].fence == lease.fence
    with lock as again:
        assert not again.lost
        assert lease.lost


def test_a_block_that_stops_for_its_loss_raises_what_check_raised(slb: Lockbeat) -> None:
    lock = slb.lock("k")
    with pytest.raises(LeaseLost) as caught, lock as lease:
        lose(slb, lock)
        lease.check()
    assert not hasattr(caught.value, "__notes__")


def test_an_error_of_the_block_goes_before_its_loss(slb: Lockbeat) -> None:
    lock = slb.lock("k")
    with pytest.raises(RuntimeError) as caught, lock:
        lose(slb, lock)
        raise RuntimeError
    assert any("is lost" in note for note in caught.value.__notes__)


def test_a_lease_that_can_no_longer_be_trusted_is_lost_though_nobody_could_say_so(slb: Lockbeat) -> None:
    """The event loop's thread may be the one that hangs."""
    with slb.lock("k") as lease:
        [held] = slb.reach().lb.keeper._held
        trusted, held.trusted_until = held.trusted_until, 0.0
        with pytest.raises(LeaseLost, match=OVERDUE):
            lease.check()
        held.trusted_until = trusted


def test_an_on_loss_that_fails_is_logged_and_ends_nothing(slb: Lockbeat, caplog: pytest.LogCaptureFixture) -> None:
    def on_loss(loss: LeaseLost) -> None:
        raise ZeroDivisionError

    lock = slb.lock("k", on_loss=on_loss)
    with pytest.raises(LeaseLost), lock:
        lose(slb, lock)
        until(lambda: "on_loss of 'k' failed" in caplog.text, "it is logged")
    assert not slb.locks.is_locked("k")


def test_a_claim_ends_as_its_block_does(slb: Lockbeat) -> None:
    with slb.claims.hold("order", hold=60) as claim:
        assert (claim.key, claim.queue, claim.attempt, claim.outcome) == ("order", "default", 1, "acquired")
        with pytest.raises(ClaimBusy), slb.claims.hold("order"):
            pass
        claim.check()
        claim.result = {"sent": 1}
    done = slb.claims.acquire("order", "other")
    assert isinstance(done, Done)
    assert done.result == {"sent": 1}

    with pytest.raises(RuntimeError), slb.claims.hold("failing"):
        raise RuntimeError("no")
    with slb.claims.hold("failing") as claim:
        assert (claim.attempt, claim.last_error) == (2, "RuntimeError: no")
        claim.release()
        assert not claim.lost


def test_a_claim_is_finished_by_a_verb_and_then_there_is_nothing_to_lose(slb: Lockbeat) -> None:
    with slb.claims.hold("order", hold=60) as claim:
        claim.complete({"by": "hand"})
        assert not slb.reach().lb.keeper._held
        claim.check()
    assert isinstance(slb.claims.acquire("order", "other"), Done)


def test_a_claim_is_checked_within_its_block_alone(slb: Lockbeat) -> None:
    """Who forgets the `with` holds nothing, and is told so."""
    claim = slb.claims.hold("k")
    for call in (claim.check, claim.complete):
        with pytest.raises(LockbeatError, match="is not claimed yet"):
            call()
    with claim:
        claim.check()
        claim.complete()
        claim.check()  # there is nothing to lose any more
    with pytest.raises(LeaseLost):
        claim.check()


def test_a_lost_claim_that_its_block_stopped_for_has_not_failed(slb: Lockbeat) -> None:
    """As with a block that is cancelled: whoever acquires it next is told of no error."""
    handle = slb.claims.hold("order")
    with pytest.raises(LeaseLost), handle as claim:
        slb.claims.release_all(slb.owner)
        hurry(slb)
        assert claim.lost.wait(PATIENCE)
        claim.check()
    with slb.claims.hold("order") as claim:
        assert claim.last_error is None


def test_ctrl_c_ends_a_wait_and_leaves_the_queue(slb: Lockbeat, blocking: Blocking) -> None:
    def press() -> None:
        until(lambda: waiters(slb), "it waits")
        os.kill(os.getpid(), signal.SIGINT)

    with blocking().lock("k"):
        pressing = in_thread(press)
        with pytest.raises(KeyboardInterrupt), slb.lock("k"):
            raise AssertionError("nobody gave it the lock")
        pressing.join()
        assert not slb.reach().lb.locks._room._waiters
    assert not slb.locks.is_locked("k")  # the release found nobody in the queue


def test_ctrl_c_in_a_block_gives_the_lock_back(slb: Lockbeat) -> None:
    with pytest.raises(KeyboardInterrupt), slb.lock("k"):
        raise KeyboardInterrupt
    assert not slb.locks.is_locked("k")
    with pytest.raises(KeyboardInterrupt), slb.claims.hold("order"):
        raise KeyboardInterrupt
    with slb.claims.hold("order") as claim:
        assert (claim.attempt, claim.last_error) == (1, None)


def test_what_is_granted_at_the_very_moment_of_ctrl_c_is_undone(slb: Lockbeat) -> None:
    undone: list[bool] = []

    async def granted() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    async def undo() -> None:
        undone.append(True)

    with pytest.raises(KeyboardInterrupt):
        slb.reach().portal.call(granted, undo)
    assert undone == [True]


def test_a_block_that_nobody_can_leave_any_more_is_left(slb: Lockbeat) -> None:
    """Ctrl-C can hit before the first step of `__exit__`."""
    slb.lock("k").__enter__()
    until(lambda: not slb.locks.is_locked("k"), "it is given back")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it hits in other libraries' callbacks, too
@only("memory", "valkey")
def test_ctrl_c_at_any_moment_leaves_no_lock_behind(slb: Lockbeat) -> None:
    """The signal hits while it is asked for, when it was granted, in the block, while it is given back."""
    hits, armed = 0, False

    def hit(number: int, frame: object) -> None:
        nonlocal hits, armed
        if armed:
            hits, armed = hits + 1, False
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, hit)
    try:
        number = 0
        while number < 400:
            with contextlib.suppress(KeyboardInterrupt):
                while number < 400:
                    number, armed = number + 1, True
                    signal.setitimer(signal.ITIMER_REAL, 0.00002 * (number % 100 + 1))
                    with slb.lock(f"k{number % 7}", wait=PATIENCE):
                        pass
                    armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits > 30
    until(lambda: slb.locks.list() == [], "nothing is held")
    assert not slb.reach().lb.keeper._held


def test_a_client_that_is_closed_tells_the_blocks_that_it_leaves(blocking: Blocking) -> None:
    lb, entered = blocking(), threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with lb.lock("k") as lease:
                entered.set()
                assert lease.lost.wait(PATIENCE)
        except BaseException as problem:  # noqa: BLE001
            raised.append(problem)

    thread = in_thread(work)
    assert entered.wait(PATIENCE)
    lb.close()
    thread.join(PATIENCE)
    [problem] = raised
    assert isinstance(problem, LeaseLost)
    assert problem.reason == CLOSED
