"""Each slot is told to each service once, from however many instances; and what a service does harms no beat."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from lockbeat import Beat, Cron, Every, Lockbeat
from lockbeat.alarms import Alarms, Cronitor, Healthchecks, Monitor, Schedule, Sentry, check_in_id, http
from lockbeat.alarms.checkins import CheckIn
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.jobs import Job, LedgerEntry, Outbox
from tests.alarms.instance import make, monitors
from tests.alarms.services import API_KEY, CRONITOR_KEY, PING_KEY, Services
from tests.beats import Beats, Hands, backdate, minutely, overdue, scheduler
from tests.conftest import only, wait_until

SENTRY = {"done": "ok", "failed": "error", "lost": "error", "missed": "error", "skipped": "error", "cancelled": "error"}
PINGS = {"ok": "success", "error": "fail"}
STATES = {"ok": "complete", "error": "fail"}


def expected(entries: Iterable[LedgerEntry]) -> dict[str, str]:
    """What the slots of a ledger are told as, by the ids of their check-ins. Of an entry that stands for many the newest five."""
    found = {}
    for entry in entries:
        if entry.state in SENTRY:
            last = entry.last_ms or entry.slot_ms
            period = 2000 if entry.job == "fails" else 1000
            slots = [*range(last, entry.slot_ms - 1, -period)][:5] if entry.last_ms else [last]
            for slot in slots:
                found[uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, "lockbeat"), f"{entry.job}@{slot}").hex] = SENTRY[entry.state]
    return found


def settled(told: Services, slug: str, ids: dict[str, str]) -> bool:
    """Whether all three have the end of each of these."""
    return all(
        status in told.sentry[slug][one] and PINGS[status] in told.pings[slug][one] and STATES[status] in told.cronitor[slug][one]
        for one, status in ids.items()
    )


def ends(statuses: Iterable[str]) -> set[str]:
    return {*statuses} - {"in_progress", "start", "run"}


class Watched:
    """An outbox that tells the three services what happens on a client's store."""

    def __init__(self, lb: Lockbeat, told: Services, *jobs: Job, chosen: list[Monitor] | None = None) -> None:
        self.watching = monitors_of(told) if chosen is None else chosen
        self.alarms = Alarms(self.watching, {job.name: job for job in jobs}, lb.jobs, lb.tasks, "default")
        self.outbox = Outbox(lb.store, [self.alarms.tell])
        self.shard = lb.jobs.shard_of("report")

    async def turn(self) -> None:
        """Tell what has happened."""
        for _ in range(3):
            await self.outbox.tick(self.shard)
            await wait_until(lambda: not self.outbox.busy, "all is told")
        await self.outbox.aclose()

    async def aclose(self) -> None:
        await self.alarms.aclose()


def monitors_of(told: Services, **options: Any) -> list[Monitor]:
    return [
        Sentry(told.dsn, **options),
        Healthchecks(PING_KEY, api_key=API_KEY, url=told.url, api_url=told.url, **options),
        Cronitor(CRONITOR_KEY, url=told.url, api_url=told.url, **options),
    ]


@only("memory", "valkey")
async def test_a_slot_is_one_check_in_from_its_firing_to_its_end(lb: Lockbeat, raw: Any, told: Services) -> None:
    job, hands = minutely(timeout=90, window=120), Hands("report")
    watched = Watched(lb, told, job)
    await watched.outbox.register()
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(watched.shard)
    [task] = hands.tasks
    await watched.turn()
    one = check_in_id("report", datetime.fromtimestamp(task.slot_ms / 1000, UTC)).hex
    assert told.sentry["report"] == {one: ["in_progress"]}
    assert told.pings["report"] == {one: ["start"]}
    await lb.tasks.complete(task)
    await watched.turn()
    assert told.sentry["report"] == {one: ["in_progress", "ok"]}
    assert told.pings["report"] == {one: ["start", "success"]}
    assert told.cronitor["report"] == {one: ["run", "complete"]}
    assert told.monitors["sentry", "report"] == {
        "schedule": {"type": "interval", "value": 1, "unit": "minute"},
        "timezone": "UTC",
        "checkin_margin": 2,
        "max_runtime": 2,
    }
    assert told.monitors["healthchecks", "report"]["timeout"] == 60
    assert told.monitors["healthchecks", "report"]["grace"] == 210
    assert told.monitors["cronitor", "report"]["schedule"] == "every 1 minutes"
    await watched.aclose()


@only("memory")
async def test_missed_slots_are_told_each_by_its_own_id(lb: Lockbeat, raw: Any, told: Services) -> None:
    job = minutely()
    watched = Watched(lb, told, job)
    await watched.outbox.register()
    first = await overdue(lb, raw, job, back=3)
    await scheduler(lb, job).tick(watched.shard)
    await watched.turn()
    missed = [check_in_id("report", datetime.fromtimestamp(first / 1000 + 60 * at, UTC)).hex for at in range(3)]
    assert {one: told.sentry["report"][one] for one in missed} == {one: ["error"] for one in missed}
    assert {one: told.pings["report"][one] for one in missed} == {one: ["fail"] for one in missed}
    assert all("missed: no instance fired it" in message for message in told.messages)
    assert len(told.sentry["report"]) == 4, "and the one that was fired"
    await watched.aclose()


@only("memory")
async def test_what_is_skipped_on_purpose_is_well_and_by_overlap_it_is_not(lb: Lockbeat, raw: Any, told: Services) -> None:
    job, hands = minutely(), Hands("report")
    watched = Watched(lb, told, job, chosen=[Sentry(told.dsn)])
    await watched.outbox.register()
    await overdue(lb, raw, job)
    await scheduler(lb, job, runner=hands).tick(watched.shard)
    [task] = hands.tasks
    await backdate(lb, raw, "report", task.slot_ms + 60_000, task.slot_ms)
    await scheduler(lb, job).tick(watched.shard)
    await watched.turn()
    assert sorted(told.sentry["report"].values()) == [["error"], ["in_progress"]]
    await watched.aclose()


@only("memory")
async def test_a_service_that_is_away_harms_nobody_is_tried_again_and_its_keys_are_in_no_log(
    lb: Lockbeat, raw: Any, told: Services, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    job = minutely()
    watched = Watched(lb, told, job, chosen=[Healthchecks(PING_KEY, url=told.url)])
    await watched.outbox.register()
    await overdue(lb, raw, job)
    told.refuse += [500, 429]
    await scheduler(lb, job).tick(watched.shard)
    await watched.turn()
    assert [*told.pings["report"].values()] == [["start"]], "the third try"
    told.hang.clear()
    await lb.jobs.delete("report")
    await overdue(lb, raw, job)
    await scheduler(lb, job).tick(watched.shard)
    await watched.turn()
    assert watched.alarms.failed >= 1
    assert "Healthchecks was not told of" in caplog.text
    for key in (PING_KEY, API_KEY, CRONITOR_KEY):
        assert key not in caplog.text
    told.hang.set()
    await watched.aclose()


@only("valkey")
async def test_several_beats_tell_each_slot_once(url: str, namespace: str, lb: Lockbeat, told: Services) -> None:
    async with make(url, namespace, told.port).lifespan(), make(url, namespace, told.port).lifespan():
        await wait_until(lambda: len(told.sentry["quick"]) >= 3 and len(told.sentry["fails"]) >= 1, "some slots")
    async with make(url, namespace, told.port).lifespan():
        for job in ("quick", "slow", "fails"):
            ids = expected(await lb.jobs.ledger(job, 1000))
            await wait_until(partial(settled, told, job, ids), f"all of {job}: {ids}, not {told.sentry[job]}")
    for service in (told.sentry, told.pings, told.cronitor):
        for job in ("quick", "slow", "fails"):
            assert all(len(ends(statuses)) <= 1 for statuses in service[job].values())


@pytest.mark.parametrize(
    ("job", "schedule"),
    [
        (Job.declare("a", Cron("0 9 * * mon-fri", "Europe/Berlin")), ("0 9 * * mon-fri", None, "Europe/Berlin")),
        (Job.declare("a", Cron("0 30 9 * * *")), ("30 9 * * *", None, "UTC")),
        (Job.declare("a", Every(7200)), ("0 0-23/2 * * *", None, "UTC")),
        (Job.declare("a", Every(3600), start=datetime(2020, 1, 1, tzinfo=UTC)), ("0 * * * *", None, "UTC")),
        (Job.declare("a", Every(60)), ("* * * * *", None, "UTC")),
        (Job.declare("a", Every(86_400, datetime(2030, 1, 1, 2, 30, tzinfo=UTC))), ("30 2 * * *", None, "UTC")),
        (Job.declare("a", Every(5400)), (None, 5_400_000, "UTC")),
        (Job.declare("a", Every(60, datetime(2030, 1, 1, 0, 0, 7, tzinfo=UTC))), (None, 60_000, "UTC")),
        # Of an offset services know the whole hours, by names that turn the sign (relay#2718: else no monitor, and no word).
        (Job.declare("a", Cron("0 9 * * *", "+05:00")), ("0 9 * * *", None, "Etc/GMT-5")),
        (Job.declare("a", Cron("0 9 * * *", "-03:00")), ("0 9 * * *", None, "Etc/GMT+3")),
        (Job.declare("a", Cron("0 9 * * *", "+05:30")), None),
        (Job.declare("a", Every(1)), None),
        (Job.declare("a", Cron("* * * * * *")), None),
        (Job.declare("a", Cron("0 9 * * 5#2")), None),
    ],
    ids=str,
)
def test_a_monitor_is_made_from_the_trigger(job: Job, schedule: tuple[Any, ...] | None) -> None:
    found = Schedule.of(job)
    assert (found and (found.crontab, found.period_ms, found.timezone)) == schedule


@pytest.mark.parametrize("minutes", [1, 2, 5, 7, 30, 60, 90, 120, 480, 1440])
@pytest.mark.parametrize("anchor", [0, 1, 29, 61, 1337])
def test_a_period_that_is_told_as_a_cron_line_has_the_same_slots(minutes: int, anchor: int) -> None:
    """sentry-python #3179: services count a period from the last check-in, and take what comes on time for missed."""
    trigger = Every(minutes * 60, anchor * 60_000)
    found = Schedule.of(Job.declare("a", trigger))
    assert found is not None
    if found.crontab is None:
        assert found.period_ms == minutes * 60_000
        return
    line, at = Cron(found.crontab), 1_893_456_000_000
    for _ in range(200):
        slot = line.next(at)
        assert slot == trigger.next(at)
        at = slot


def test_no_two_jobs_share_a_slug() -> None:
    def slug(name: str) -> str:
        job = Job.declare(name, Every(60))
        made = Schedule.of(job)
        assert made is not None
        return CheckIn(job, datetime.now(UTC), "ok", made).slug

    # Sentry takes none of digits alone, and strips _ off a slug's ends (sentry#79337, PR121456).
    names = ["report", "Report", "re port", "re-port", "é", "日本語", "x" * 60, "x" * 61, "1234", "report_", "_report", "-", "_"]
    slugs = [slug(name) for name in names]
    assert len({*slugs}) == len(names)
    assert slugs[0] == "report"
    assert all(len(one) <= 50 for one in slugs)
    assert all(one.strip("-_") == one and not one.isdigit() for one in slugs)


def test_bad_arguments_are_named_and_no_key_is_shown() -> None:
    for call, said in (
        (lambda: Sentry("http://127.0.0.1/1"), "dsn: must be https://KEY@HOST/PROJECT"),
        (lambda: Sentry("https://sesame@host/x"), "dsn: must be https://KEY@HOST/PROJECT"),
        (lambda: Sentry("https://sesame@[::1/1"), "dsn: must be https://KEY@HOST/PROJECT"),
        (lambda: Healthchecks(""), "ping_key: must not be empty"),
        (lambda: Healthchecks("sesame", url="hc"), "url: must be a URL that begins with https://HOST"),
        (lambda: Cronitor("sesame", jobs="report"), "jobs: must be several names, not one str"),
    ):
        with pytest.raises((InvalidArgument, InvalidType)) as problem:
            call()
        assert str(problem.value) == said
        assert "sesame" not in str(problem.value)
    assert "sesame" not in repr([Healthchecks("sesame"), Cronitor("sesame"), Sentry("https://sesame@host/1")])
    with pytest.raises(InvalidType, match="monitors: must be such as Sentry"):
        Beat(monitors=["sentry"])  # type: ignore[list-item]


@only("memory")
async def test_who_watches_what_is_chosen_by_name_and_tag(beats: Beats) -> None:
    tagged, other = Job.declare("a", Every(60), tags=["billing"]), Job.declare("b", Every(60))
    assert [Sentry("https://k@host/1", tags=["billing"]).watches(job) for job in (tagged, other)] == [True, False]
    assert [Sentry("https://k@host/1", jobs=["b"]).watches(job) for job in (tagged, other)] == [False, True]
    assert len(monitors(1)) == 3
    assert beats(monitors=monitors(1)).declared == {}
