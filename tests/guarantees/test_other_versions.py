"""Instances of an older and of a newer version work on one store of one format: samples of what the others wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import StoreError
from lockbeat.jobs import Job, plan
from lockbeat.store import results
from lockbeat.triggers import Cron, Every
from tests.beats import now_ms, scheduler, states
from tests.conftest import only
from tests.tasks import NOON, stopped

SAMPLES = Path(__file__).parents[1] / "samples"
WROTE = {"string": "set", "hash": "hset", "zset": "zadd"}


def load(raw: Any, lb: Lockbeat, sample: str) -> None:
    """Put what another version left behind in the place of what is there."""
    for name, value in json.loads((SAMPLES / f"{sample}.json").read_text()).items():
        if name != "note":
            [(kind, held)] = value.items()
            key = lb.store.keys.key(0, name)
            raw.delete(key)
            raw.set(key, held) if kind == "string" else getattr(raw, WROTE[kind])(key, mapping=held)


def definition(raw: Any, lb: Lockbeat, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw.hget(lb.store.keys.key(0, "job"), name).partition(b" ")[2])
    return found


def hourly(name: str) -> Job:
    return Job.declare(name, Every(3600))


@only("memory", "valkey", "redis")
async def test_what_an_older_version_left_out_is_as_it_would_be_declared_without(lb: Lockbeat, raw: Any) -> None:
    load(raw, lb, "older")
    [state] = await lb.jobs.list()
    assert state.job == hourly("plain")
    beat = scheduler(lb)
    await beat.tick(0)
    assert beat.fired == 1
    assert (await states(lb, "plain"))[-1] == "fired"


@only("memory", "valkey", "redis")
async def test_an_older_versions_job_keeps_its_slot_when_this_one_declares_it(lb: Lockbeat, raw: Any) -> None:
    load(raw, lb, "older")
    before = await lb.jobs.get("plain")
    await lb.jobs.put(hourly("plain"))
    assert await lb.jobs.get("plain") == replace(before, rev=hourly("plain").rev)
    assert definition(raw, lb, "plain")["keep"] == 100


def test_where_an_option_says_nothing_old_and_new_declare_the_same() -> None:
    """Or a rolling deploy, in which both declare, would change the definition back and forth."""
    older = json.loads((SAMPLES / "newer.json").read_text())["job"]["hash"]["plain"]
    assert f"{hourly('plain').rev} {hourly('plain').definition}" == older


@only("memory", "valkey", "redis")
async def test_a_newer_versions_job_is_fired_unless_it_needs_that_version(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    load(raw, lb, "newer")
    beat = scheduler(lb, hourly("plain"))
    await beat.tick(0)
    assert beat.fired == 2
    assert [(await states(lb, name))[-1:] for name in ("colourful", "plain", "calendar")] == [["fired"], ["fired"], []]
    assert "job 'calendar' is left to newer instances" in caplog.text
    assert "needs a lockbeat that reads definitions 5, not 4" in caplog.text
    assert [state.job.name for state in await lb.jobs.list()] == ["colourful", "plain"]
    with pytest.raises(StoreError, match="needs a lockbeat that reads definitions 5"):
        await lb.jobs.get("calendar")


@only("memory")
async def test_a_job_in_a_zone_that_is_unknown_here_is_left_to_who_knows_it_and_stops_no_other(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Another host's tzdata has it."""
    key = lb.store.keys.key(0, "job")
    with stopped() as to:
        await lb.jobs.put(
            *(Job.declare(name, Cron("* * * * *", zone)) for name, zone in (("here", "UTC"), ("there", "Asia/Tokyo")))
        )
        known = raw.hget(key, "there")
        raw.hset(key, "there", known.replace(b"Asia/Tokyo", b"Mars/Base"))
        to(NOON + 60)
        await scheduler(lb).tick(0)
        assert [(await states(lb, name))[-1:] for name in ("here", "there")] == [["fired"], []]
        assert "unknown time zone 'Mars/Base'" in caplog.text
        raw.hset(key, "there", known)
        to(NOON + 70)
        await scheduler(lb).tick(0)
        assert (await states(lb, "there"))[-1:] == ["fired"]


@only("memory", "valkey", "redis")
async def test_what_a_newer_version_wrote_survives_a_change_that_this_one_makes(lb: Lockbeat, raw: Any) -> None:
    load(raw, lb, "newer")
    before = definition(raw, lb, "colourful")
    await lb.jobs.put(replace((await lb.jobs.get("colourful")).job, priority=7))
    assert definition(raw, lb, "colourful") == before | {"priority": 7, "origin": "api"}
    assert before["colour"] == "red"


@only("memory", "valkey", "redis")
async def test_a_declaration_is_the_whole_definition_but_takes_no_job_from_a_newer_version(lb: Lockbeat, raw: Any) -> None:
    """Rolled back, or on its way to be updated: older code may declare what newer code did."""
    load(raw, lb, "newer")
    before = raw.hgetall(lb.store.keys.key(0, "job")), raw.hgetall(lb.store.keys.key(0, "job:slot"))
    declared = hourly("calendar")
    row = lb.jobs._row(declared, plan.first(declared, await now_ms(lb)) or plan.none(declared), 0, "anna", "")
    assert (await lb.store.call_row(row, 0)).code == results.NO
    assert (raw.hgetall(lb.store.keys.key(0, "job")), raw.hgetall(lb.store.keys.key(0, "job:slot"))) == before
    await lb.jobs.put(hourly("calendar"), hourly("colourful"), hourly("plain"))
    assert definition(raw, lb, "calendar")["calendar"] == "de"
    assert "colour" not in definition(raw, lb, "colourful")
    assert await lb.jobs.delete("calendar")
    await lb.jobs.put(hourly("calendar"))
    assert (await lb.jobs.get("calendar")).job == hourly("calendar")
