"""What Prometheus is told: counted where it happens, zero from the start, in bounded labels, and read by its own parser."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from lockbeat import Beat, Fixed, Lockbeat, LockbeatError
from lockbeat.counting import DYNAMIC, NAMED, OTHER, Counting
from lockbeat.metrics import Metrics
from lockbeat.monitor import measure
from tests.beats import Beats, backdate, now_ms, overdue
from tests.claims import acquired, ran_out
from tests.conftest import Backend, only, wait_until
from tests.metrics.conftest import read, value
from tests.tasks import begun


@contextlib.asynccontextmanager
async def serving(beat: Beat) -> AsyncIterator[None]:
    task = asyncio.create_task(beat.serve())
    try:
        await wait_until(lambda: beat.health.started().ok or task.done(), "it serves")
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def declared(beat: Beat, *, often: bool = True) -> Beat:
    if often:
        beat.every(0.2, name="tick", overlap="allow")(lambda: None)

    def fails() -> None:
        raise ValueError("no")

    beat.every(3600, name="hourly")(lambda: None)
    beat.task(name="fails", max_attempts=2, retry=Fixed(0.01))(fails)
    return beat


async def test_what_an_instance_does_is_counted(beats: Beats, backend: Backend) -> None:
    beat = declared(beats())
    metrics = Metrics(beat)
    before = metrics.text()
    assert value(before, "lockbeat_slots_fired_total", job="tick") == 0
    assert value(before, "lockbeat_slots_fired_total", job="hourly") == 0
    assert value(before, "lockbeat_runs_total", job="", function="fails", outcome="dead") == 0
    async with serving(beat):
        await beat.spawn("fails")

        def said(outcome: str, **labels: str) -> float:
            return value(metrics.text(), "lockbeat_runs_total", outcome=outcome, **labels)

        await wait_until(lambda: said("dead", job="", function="fails"), "a task fails for good")
        assert said("retried", job="", function="fails") == 1
        await wait_until(lambda: said("done", job="tick", function="tick") >= 2, "slots are run")
        text = metrics.text()
        assert value(text, "lockbeat_slots_fired_total", job="tick") >= 2
        assert value(text, "lockbeat_slots_fired_total", job="hourly") == 0
        assert value(text, "lockbeat_slots_fired_total", job=DYNAMIC) == 0
        late = value(text, "lockbeat_slot_lateness_seconds_count", job="tick")
        assert late == value(text, "lockbeat_slots_fired_total", job="tick")
        assert 0 <= value(text, "lockbeat_slot_lateness_seconds_sum", job="tick") < 60 * late
        assert value(text, "lockbeat_run_duration_seconds_count", job="tick", function="tick") >= 2
        if backend.name != "memory":  # nothing goes over a connection
            assert value(text, "lockbeat_store_calls_total", script="beat/due") >= 1
        assert (value(text, "lockbeat_live"), value(text, "lockbeat_ready")) == (1, 1)
        assert abs(value(text, "lockbeat_clock_offset_seconds")) < 60
        assert value(text, "lockbeat_turn_late_seconds", loop="firing") < 60


@only("memory", "valkey")
async def test_the_numbers_of_the_store(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    beat = declared(beats(), often=False)
    metrics = Metrics(beat)
    async with serving(beat):
        await beat.spawn("fails", max_attempts=1)
        await lb.tasks.spawn("nobody", queue="elsewhere")
        await lb.tasks.spawn("nobody", queue="elsewhere", delay=3600)

        async def said(name: str, **labels: str) -> float:
            metrics._measured = None
            return value(await metrics.store_text(), name, **labels)

        while not await said("lockbeat_queue_tasks", queue="default", state="dead"):
            await asyncio.sleep(0.01)
        text = await metrics.store_text()
        assert value(text, "lockbeat_store_up") == 1
        assert value(text, "lockbeat_queue_tasks", queue="elsewhere", state="ready") == 1
        assert value(text, "lockbeat_queue_tasks", queue="elsewhere", state="delayed") == 1
        assert 0 <= value(text, "lockbeat_queue_oldest_seconds", queue="elsewhere") < 60
        assert value(text, "lockbeat_queue_oldest_seconds", queue="default") == 0
        assert value(text, "lockbeat_queue_workers", queue="default") == 1
        assert value(text, "lockbeat_instances", role="scheduler") == 1
        assert value(text, "lockbeat_job_overdue_seconds", job="hourly") == 0
        assert value(text, "lockbeat_slots_missed_total", reason="not_fired") == 0
        assert value(text, "lockbeat_job_slots_total", job="hourly", outcome="missed") == 0
        assert value(text, "lockbeat_tasks_total", event="failed") == 1
    assert read(await metrics.store_text()) == {("lockbeat_store_up", frozenset()): 0}


# -- labels


def test_labels_are_bounded() -> None:
    counting = Counting({f"job {n}": f"function {n}" for n in range(3 * NAMED)}, [f"task {n}" for n in range(NAMED)])
    for n in range(10 * NAMED):
        counting.fired(f"job {n}", 0.1)
        counting.ran(f"job {n}", f"function {n}", "done", 0.1)
        counting.ran("", f"task {n}", "done", 0.1)
    labels = {id(slots) for slots in counting.slots.values()}
    assert len(labels) <= NAMED + 2
    assert len(counting.runs) <= 2 * NAMED + 3
    assert counting.slots["job 3"].fired == 1
    assert counting.slots[OTHER].fired == 3 * NAMED - NAMED
    assert counting.slots[DYNAMIC].fired == 7 * NAMED
    assert sum(runs.ended["done"] for runs in counting.runs.values()) == 20 * NAMED


def test_jobs_made_at_run_time_have_their_names_if_so_told() -> None:
    counting = Counting({"code": "run"}, dynamic=True)
    for name in ("code", "one", "one", "two"):
        counting.fired(name, 0)
        counting.ran(name, "run", "done", 0)
    assert {name: slots.fired for name, slots in counting.slots.items()} == {DYNAMIC: 0, "code": 1, "one": 2, "two": 1}
    assert {job for job, _ in counting.runs} == {"code", "one", "two"}
    for n in range(3 * NAMED):
        counting.fired(f"job {n}", 0)
    assert len(counting.slots) <= NAMED + 2
    assert counting.slots[DYNAMIC].fired


async def test_no_label_says_who_or_what_it_was(beats: Beats) -> None:
    """An owner is another at each start, a key another each time: either would fill Prometheus' memory."""
    beat = declared(beats(owner="host-77-abcdef"))
    metrics = Metrics(beat)
    async with serving(beat):
        await beat.jobs.put("made at run time", beat.declared["hourly"].trigger, function="tick")
        await beat.spawn("fails", idempotency_key="key-of-mine")
        await wait_until(lambda: value(metrics.text(), "lockbeat_runs_total", job="", function="fails", outcome="dead"), "it ran")
        text = metrics.text() + await metrics.store_text()
    assert b"made at run time" not in text
    assert b"key-of-mine" not in text
    assert b"abcdef" not in text


# -- where they come from


async def test_a_claim_that_is_taken_over_is_counted(connect: Any) -> None:
    lb = connect()
    metrics = Metrics(lb)
    async with lb:
        await acquired(lb.claims, "k", lease=0.5)
        await ran_out(lb, "k")
        assert value(metrics.text(), "lockbeat_claims_taken_over_total") == 0
        await acquired(lb.claims, "k", "bob")
        assert value(metrics.text(), "lockbeat_claims_taken_over_total") == 1


async def test_a_lease_that_is_lost_is_counted(connect: Any) -> None:
    lb = connect()
    metrics = Metrics(lb)
    async with lb:
        handle = lb.lock("k", ttl=1)
        with contextlib.suppress(LockbeatError, asyncio.CancelledError):
            async with handle:
                await lb.locks.release_all(lb.owner)
                await asyncio.sleep(60)
        assert value(metrics.text(), "lockbeat_leases_lost_total", kind="lock") == 1
        assert value(metrics.text(), "lockbeat_leases_lost_total", kind="task") == 0


@only("memory", "valkey")
async def test_slots_that_are_missed_are_counted_with_their_reason(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    """In the store, so they outlive whoever found them; under the job's name where the code declares it."""
    beat = beats()
    beat.every(60, name="report")(lambda: None)
    metrics = Metrics(beat)
    await overdue(lb, raw, beat.declared["report"], back=3)
    async with serving(beat):

        async def missed() -> float:
            metrics._measured = None
            return value(await metrics.store_text(), "lockbeat_slots_missed_total", reason="not_fired")

        async with asyncio.timeout(60):
            while await missed() < 3:
                await asyncio.sleep(0.02)
        text = await metrics.store_text()
        assert value(text, "lockbeat_job_slots_total", job="report", outcome="missed") == await missed()


@only("memory", "valkey")
async def test_slots_that_are_skipped_are_counted_with_their_reason(beats: Beats, lb: Lockbeat, raw: Any) -> None:
    beat, go_on = beats(), asyncio.Event()
    beat.every(0.2, name="long")(go_on.wait)
    metrics = Metrics(beat)
    async with serving(beat):

        async def skipped() -> float:
            metrics._measured = None
            return value(await metrics.store_text(), "lockbeat_slots_skipped_total", reason="overlap")

        async with asyncio.timeout(60):
            while not await skipped():
                await asyncio.sleep(0.02)
        go_on.set()


@only("memory", "valkey")
async def test_an_attempt_whose_lease_ran_out_is_counted_as_taken_over(lb: Lockbeat) -> None:
    await begun(lb, lease=0.2, max_attempts=3)
    async with asyncio.timeout(60):
        while not (await measure(lb.store)).stats["taken_back"]:
            await lb.tasks.claim("default", "bob", lease=30)
            await asyncio.sleep(0.02)


async def test_a_job_that_is_overdue_is_told_by_name_or_among_the_dynamic(lb: Lockbeat, raw: Any, beats: Beats) -> None:
    beat = beats()
    beat.every(60, name="report")(lambda: None)
    metrics = Metrics(beat)
    for name in ("report", "by a customer"):
        job = beat.declared["report"]
        await lb.jobs.put(name, job.trigger, function="report")
        await backdate(lb, raw, name, await now_ms(lb) - (90_000 if name == "report" else 30_000))
    beat.use(lb)
    beat._client = lb
    text = await metrics.store_text()
    assert 90 <= value(text, "lockbeat_job_overdue_seconds", job="report") < 150
    assert 30 <= value(text, "lockbeat_job_overdue_seconds", job=DYNAMIC) < 90
    assert value(text, "lockbeat_jobs_due") == 2
    assert value(text, "lockbeat_next_due_lag_seconds") == value(text, "lockbeat_job_overdue_seconds", job="report")


async def test_a_store_that_is_lost_and_found_again(server: Any, namespace: str) -> None:
    lb = Lockbeat(server.url, namespace=namespace, timeout=1)
    metrics = Metrics(lb)
    async with lb:
        await lb.locks.owner("k")
        assert value(metrics.text(), "lockbeat_store_reconnects_total") == 0
        server.kill()
        with pytest.raises(LockbeatError):
            await lb.locks.owner("k")
        assert value(await metrics.store_text(), "lockbeat_store_up") == 0
        server.restart()
        await lb.locks.owner("k")
        text = metrics.text()
        assert value(text, "lockbeat_store_reconnects_total") >= 1
        assert value(text, "lockbeat_store_errors_total", kind="unavailable") >= 1
        assert value(await metrics.store_text(), "lockbeat_store_up") == 1


# -- how they are asked for


async def test_a_registry_of_ones_own_has_them(beats: Beats) -> None:
    beat = declared(beats())
    metrics = Metrics(beat)
    mine, store = CollectorRegistry(), CollectorRegistry()
    mine.register(metrics.process)
    store.register(metrics.store)
    assert value(generate_latest(mine), "lockbeat_slots_fired_total", job="hourly") == 0
    async with serving(beat):
        text = await asyncio.to_thread(generate_latest, store)
        assert value(text, "lockbeat_store_up") == 1
    assert value(generate_latest(store), "lockbeat_store_up") == 0


async def test_a_registry_takes_those_of_one_beat_for_its_labels_tell_no_other_apart(beats: Beats) -> None:
    """client_python#818: where two are taken, each series comes twice, and what scrapes it keeps one of them."""
    metrics, registry = Metrics(declared(beats())), CollectorRegistry()
    registry.register(metrics.process)
    registry.register(metrics.store)  # of other names
    for again in (Metrics(declared(beats())).process, Metrics(declared(beats())).store):
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            registry.register(again)
    registry.unregister(metrics.process)
    registry.register(Metrics(declared(beats())).process)


async def test_an_asgi_application_answers_where_it_is_mounted(beats: Beats) -> None:
    beat = declared(beats())
    metrics = Metrics(beat)

    async def ask(path: str, root: str = "", method: str = "GET") -> tuple[int, bytes]:
        said: list[MutableMapping[str, Any]] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            said.append(message)

        await metrics.app({"type": "http", "path": path, "root_path": root, "method": method}, asyncio.Event().wait, send)
        return said[0]["status"], said[1]["body"]

    async with serving(beat):
        assert value((await ask("/metrics/", "/metrics"))[1], "lockbeat_live") == 1
        assert value((await ask("/metrics/store", "/metrics"))[1], "lockbeat_store_up") == 1
        assert (await ask("/metrics"))[0] == 200
        assert await ask("/metrics", method="HEAD") == (200, b"")
        assert (await ask("/elsewhere"))[0] == 404


async def test_metrics_are_made_before_it_is_open(lb: Lockbeat) -> None:
    with pytest.raises(LockbeatError, match="open already"):
        Metrics(lb)
    with pytest.raises(LockbeatError, match="must be a Beat or a Lockbeat"):
        Metrics("redis://")  # type: ignore[arg-type]


def test_lockbeat_alone_does_not_import_prometheus_client() -> None:
    code = """import lockbeat, lockbeat.sync, lockbeat.cli, sys
sys.exit(any(module.startswith(("prometheus", "http.server")) for module in sys.modules))"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys; sys.modules['prometheus_client'] = None; import lockbeat.metrics"
    told = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "pip install 'lockbeat[prometheus]'" in told.stderr


async def test_a_blocked_loop_keeps_the_store_from_being_asked_and_nobody_waiting(
    beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbeat.metrics.metrics.PATIENCE", 0.2)
    beat = declared(beats())
    metrics = Metrics(beat)
    async with serving(beat):
        told: list[bytes] = []
        asking = threading.Thread(target=lambda: told.append(metrics.store_text_from_thread()))
        asking.start()
        asking.join(60)  # the loop is blocked
        assert value(told[0], "lockbeat_store_up") == 0
        assert not math.isnan(value(metrics.text(), "lockbeat_live"))


async def test_those_who_ask_at_once_are_told_what_one_has_asked(beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def counted(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return await measure(*args)

    monkeypatch.setattr("lockbeat.metrics.metrics.measure", counted)
    monkeypatch.setattr("lockbeat.metrics.metrics.FRESH", 3600)
    beat = declared(beats())
    metrics = Metrics(beat)
    async with serving(beat):
        told = await asyncio.gather(*(metrics.store_text() for _ in range(20)))
    assert {value(text, "lockbeat_store_up") for text in told} == {1}
    assert asked == 1


@pytest.mark.filterwarnings("error")
def test_who_asks_while_the_loop_ends_or_has_ended_is_told_that_the_store_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = threading.Event(), list[bytes]()

    async def hangs(*_: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("lockbeat.metrics.metrics.measure", hangs)
    lb = Lockbeat("memory://")
    metrics = Metrics(lb)
    asking = threading.Thread(target=lambda: told.append(metrics.store_text_from_thread()))

    async def left_open() -> None:
        await lb.__aenter__()
        asking.start()
        await asyncio.to_thread(asked.wait, 60)

    asyncio.run(left_open())
    asking.join(60)
    told.append(metrics.store_text_from_thread())
    gc.collect()  # what was never awaited is warned of
    assert [value(text, "lockbeat_store_up") for text in told] == [0, 0]
