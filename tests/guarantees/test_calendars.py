"""Calendars in the store: one for all instances and all shards, whatever happens to the call that puts it."""

from __future__ import annotations

import asyncio
import builtins
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.calendars import Calendar, CalendarEntry
from lockbeat.calendars.verbs import write
from lockbeat.errors import CalendarInUse, InvalidArgument, MissingExtra, StoreError, UnknownCalendar, Unreadable
from lockbeat.store import results
from tests.conftest import Connect, only

NAMED = {"2030-12-25": "Christmas", "2030-12-31..2031-01-01": "New Year"}


async def copies(lb: Lockbeat, name: str = "holidays") -> list[tuple[bytes, bytes] | None]:
    """What each shard has of it."""
    shards = range(lb.store.shards)
    return [await lb.store.call("calendar/get", shard, name=name, known="") for shard in shards]


async def test_a_calendar_is_kept_changed_and_forgotten_for_all_instances(lb: Lockbeat, connect: Connect) -> None:
    put = await lb.calendars.put("holidays", NAMED)
    assert [str(entry) for entry in put.entries] == ["2030-12-25 Christmas", "2030-12-31..2031-01-01 New Year"]
    assert (str(put.until), put.source) == ("2031-01-01", "dates")
    async with connect() as other:
        assert await other.calendars.get("holidays") == put
        changed = await other.calendars.put("holidays", ["2030-12-26"], until=put.until)
        assert changed.put_at >= put.put_at
        assert await lb.calendars.list() == [changed]
        assert await lb.calendars.put("holidays", ["2030-12-26"], until=put.until) == changed, "the same again is no change"
        assert await other.calendars.delete("holidays")
    assert not await lb.calendars.delete("holidays")
    assert await lb.calendars.list() == []
    with pytest.raises(UnknownCalendar, match="no calendar named 'holidays'"):
        await lb.calendars.get("holidays")


async def test_every_shard_has_the_same_copy(lb: Lockbeat) -> None:
    await lb.calendars.put("holidays", NAMED)
    assert len(set(await copies(lb))) == 1
    await lb.calendars.put("holidays", ["2030-12-26"])
    [copy] = set(await copies(lb))
    assert copy is not None
    assert b"12-26" in copy[1]
    await lb.calendars.delete("holidays")
    assert set(await copies(lb)) == {None}


@only("cluster")
async def test_a_put_that_stopped_half_way_is_finished_by_the_next(lb: Lockbeat) -> None:
    before = await lb.calendars.put("holidays", NAMED)
    after = Calendar("holidays", (CalendarEntry.of("2030-05-01"),), before.until)
    await write(lb.store, after, 0)  # and its process died
    assert len(set(await copies(lb))) == 2
    assert (await lb.calendars.put("holidays", ["2030-05-01"], until=before.until)).rev == after.rev
    assert len(set(await copies(lb))) == 1
    assert (await lb.calendars.get("holidays")).entries == after.entries


@only("cluster")
async def test_of_two_puts_at_once_every_shard_ends_up_with_the_same(lb: Lockbeat, connect: Connect) -> None:
    async with connect() as other:
        for n in range(20):
            days = [[f"2030-01-{day:02}"] for day in range(1, 9)]
            await asyncio.gather(*((lb, other)[at % 2].calendars.put(f"c{n}", day) for at, day in enumerate(days)))
            assert len(set(await copies(lb, f"c{n}"))) == 1


@only("cluster")
async def test_a_copy_that_comes_late_does_not_replace_a_newer_one_and_a_late_delete_spares_it(lb: Lockbeat) -> None:
    old, new = (
        Calendar("c", (CalendarEntry.of(day),), CalendarEntry.of("2030-12-31").last) for day in ("2030-01-01", "2030-02-02")
    )
    first, gone = await write(lb.store, old, 0), await lb.calendars._forget("c", 0, 0)
    second = await write(lb.store, new, 0)
    assert first.number <= gone.number < second.number
    assert (await write(lb.store, new, 1, second.number, second.put_ms)).code == results.NEW
    assert (await write(lb.store, old, 1, first.number, first.put_ms)).code == results.NO
    assert (await lb.calendars._forget("c", gone.number, 1)).code == results.NO
    found = await copies(lb, "c")
    assert found[0] == found[1]


@only("memory", "valkey", "redis")
async def test_a_calendar_that_can_not_be_read_is_named_and_put_anew(
    lb: Lockbeat, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = lb.store.keys.key
    for name, damage in [
        ("calendar", b"foreign"),
        ("calendar", b""),
        ("calendar", b"ab12 7 7 {"),
        ("calendar", b"ab12 7 7 {}"),
        ("calendar:days", b"[[1]]"),
        ("calendar:days", b"\xff"),
    ]:
        kept = await lb.calendars.put("holidays", NAMED)
        await lb.calendars.put("other", ["2030-12-25"])
        raw.hset(key(0, name), "holidays", damage)
        with pytest.raises(Unreadable) as told:
            await lb.calendars.get("holidays")
        assert told.value.field == "holidays"
        assert [calendar.name for calendar in await lb.calendars.list()] == ["other"]
        assert "'holidays' is left out" in caplog.text
        await lb.calendars.put("holidays", ["2030-06-01"])
        assert (await lb.calendars.put("holidays", NAMED)).entries == kept.entries
        assert (await lb.calendars.get("holidays")).entries == kept.entries
        raw.hset(key(0, name), "holidays", damage)
        assert await lb.calendars.delete("holidays"), "what can't be read can be deleted"


@only("memory", "valkey", "redis")
async def test_days_that_were_lost_are_named_and_come_back_with_the_same_put(lb: Lockbeat, raw: Any) -> None:
    await lb.calendars.put("holidays", NAMED)
    raw.hdel(lb.store.keys.key(0, "calendar:days"), "holidays")
    with pytest.raises(Unreadable) as told:
        await lb.calendars.get("holidays")
    assert told.value.key == lb.store.keys.key(0, "calendar:days")
    await lb.calendars.put("holidays", NAMED)
    assert (await lb.calendars.get("holidays")).on(CalendarEntry.of("2030-12-25").first) is not None


@only("memory", "valkey")
async def test_the_greatest_calendar_is_kept_whole_and_their_number_is_bounded(
    lb: Lockbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = CalendarEntry.of("2030-01-01").first.toordinal()
    days = [CalendarEntry.of(type(CalendarEntry.of("2030-01-01").first).fromordinal(first + n), "x" * 200) for n in range(4000)]
    assert (await lb.calendars.put("great", days)) == await lb.calendars.get("great")
    monkeypatch.setattr("lockbeat.calendars.verbs.MOST_CALENDARS", 2)
    await lb.calendars.put("second", ["2030-01-01"])
    with pytest.raises(StoreError, match="at most 2 calendars"):
        await lb.calendars.put("third", ["2030-01-01"])
    await lb.calendars.put("second", ["2030-01-02"])
    assert [calendar.name for calendar in await lb.calendars.list()] == ["great", "second"]


@only("memory")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "one of dates, ics and country"),
        ({"dates": ["2030-01-01"], "country": "DE"}, "one of dates, ics and country"),
        ({"dates": []}, "must have a day"),
        ({"dates": ["2030-01-01"], "years": 2030}, "years"),
        ({"dates": ["2030-01-01"], "until": "2031-01-01"}, "until"),
        ({"dates": ["2030-01-02"], "until": CalendarEntry.of("2030-01-01").first}, "before the last"),
        ({"dates": ["2030-01-01"], "subdivision": "BY"}, "subdivision"),
        ({"country": "DE", "until": CalendarEntry.of("2030-01-01").first}, "until"),
        ({"country": "DE", "years": []}, "years"),
        ({"ics": "/nowhere.ics"}, "No such file"),
    ],
)
async def test_bad_input_is_one_clear_line_and_changes_nothing(lb: Lockbeat, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        await lb.calendars.put("holidays", **given)
    assert await lb.calendars.list() == []


@only("memory")
async def test_without_the_extra_it_says_what_to_install(lb: Lockbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name in ("holidays", "icalendar"):
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    for source in ({"country": "DE"}, {"ics": b""}):
        with pytest.raises(MissingExtra, match=r"pip install 'lockbeat\[calendars\]'"):
            await lb.calendars.put("holidays", **source)
    assert await lb.calendars.put("holidays", NAMED), "dates need nothing"


@only("memory")
async def test_holidays_are_resolved_when_they_are_put_for_the_servers_years(lb: Lockbeat) -> None:
    put = await lb.calendars.put("holidays", country="DE", subdivision="BY")
    kept = await lb.calendars.get("holidays")
    assert kept == put
    year = int(kept.until.year)
    assert {entry.first.year for entry in kept.entries} == {year - 2, year - 1, year}
    assert kept.source == "holidays DE-BY"
    assert kept.version


async def test_a_calendar_in_use_is_deleted_by_force_alone(lb: Lockbeat, raw: Any) -> None:
    await lb.calendars.put("holidays", NAMED)
    for job in ("b", "a", "c"):
        shard = lb.jobs.shard_of(job)
        names = '["other"]' if job == "c" else '["other","holidays"]'
        raw.hset(lb.store.keys.key(shard, "job"), job, f'1.2 {{"needs":2,"exclude":{names},"trigger":{{}}}}')
        raw.zadd(lb.store.keys.key(shard, "job:order"), {job: 0})
    assert await lb.calendars.users("holidays") == ["a", "b"]
    assert await lb.calendars.users("other") == ["a", "b", "c"]
    with pytest.raises(CalendarInUse, match="is in use: a, b exclude by it") as told:
        await lb.calendars.delete("holidays")
    assert told.value.jobs == ["a", "b"]
    assert await lb.calendars.get("holidays")
    assert await lb.calendars.delete("holidays", force=True)
