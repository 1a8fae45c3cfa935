"""Backfills are listed in one order, and what they fired is told from other slots."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import InvalidArgument
from tests.backfills import Filler, at, hours
from tests.beats import Hands, backdate, last_slot, ledger, minutely, scheduler
from tests.conftest import needs, only
from tests.servers import standalone, valkey_binary

here_and_there = only("memory", "valkey")


@here_and_there
async def test_a_slot_that_was_backfilled_is_told_from_others_for_good(lb: Lockbeat, raw: Any) -> None:
    job, reason = minutely(keep_for=86_400), "ü" * 150
    slots, filler = await hours(lb, 3, job), Filler(lb)
    live = await last_slot(lb, await lb.jobs.get("report"))
    hands = Hands("report")
    await backdate(lb, raw, "report", live)
    await scheduler(lb, job, runner=hands).tick(lb.jobs.shard_of("report"))
    await lb.tasks.complete(hands.tasks[0])
    await lb.jobs.backfill("report", at(slots[0]), at(slots[2]), by="anna\x1e", reason=reason)
    [first] = await filler.turn()
    assert (await ledger(lb, "report"))[0].backfill == ("anna ", reason[:100]), "as many characters as 200 bytes hold"
    await lb.tasks.fail(first, "broken")
    await filler.go_on()
    told_of = {entry.slot_ms: (entry.state, entry.backfill, entry.lateness is None) for entry in await ledger(lb, "report")}
    mark = ("anna ", reason[:100])
    assert told_of == {slots[0]: ("failed", mark, True), slots[1]: ("done", mark, True), live: ("done", None, False)}
    assert {entry.slot_ms: entry.backfill for entry in (await lb.jobs.history()).entries} == {
        slot: found for slot, (_, found, _) in told_of.items()
    }
    why = (await lb.jobs.why("report", at(slots[1]))).text
    assert "A backfill fired it at 20" in why
    assert "for it had not run at its time: begun by anna : üü" in why
    assert "after its slot" not in why
    assert "A backfill" not in (await lb.jobs.why("report", at(live))).text
    assert await lb.tasks.retry(first.id)
    [again] = await filler.turn()
    await lb.tasks.complete(again)
    assert {entry.slot_ms: entry.backfill for entry in await ledger(lb, "report")}[slots[0]] == mark, "also after a retry"


async def test_all_backfills_are_listed_in_order_of_job_and_in_pages(lb: Lockbeat) -> None:
    assert await lb.jobs.backfills() == []
    names = [f"job-{n:02}" for n in range(12)]
    for name in names:
        slots = await hours(lb, 3, minutely(name))
        await lb.jobs.backfill(name, at(slots[0]), reason=name)
    await lb.jobs.pause_backfill(names[3])
    await lb.jobs.cancel_backfill(names[5])
    await lb.jobs.put(minutely("without"))
    found = await lb.jobs.backfills()
    assert [(one.job, one.reason) for one in found] == [(name, name) for name in names]
    assert [one.job for one in await lb.jobs.backfills(state="paused")] == [names[3]]
    assert [one.job for one in await lb.jobs.backfills(state="cancelled")] == [names[5]]
    assert [one.job for one in await lb.jobs.backfills(after=names[6], limit=3)] == names[7:10]
    assert await lb.jobs.backfills(after=names[-1]) == []
    states = {state.job.name: state.backfill and state.backfill.state for state in await lb.jobs.list()}
    assert states == dict.fromkeys(names, "running") | {names[3]: "paused", names[5]: None, "without": None}
    for given in ({"state": "odd"}, {"limit": 0}, {"after": ""}):
        with pytest.raises(InvalidArgument):
            await lb.jobs.backfills(**given)


@only("memory", "valkey")
async def test_they_are_listed_though_there_are_many_or_their_places_were_lost(lb: Lockbeat, raw: Any) -> None:
    names = [f"job-{n:02}" for n in range(9)]
    for name in names[::2]:
        slots = await hours(lb, 3, minutely(name))
        await lb.jobs.backfill(name, at(slots[0]))
    await lb.jobs.put(*(minutely(name) for name in names[1::2]))
    raw.delete(lb.store.keys.key(0, "backfill:due"))  # then it goes through the jobs, as where there are many
    assert [one.job for one in await lb.jobs.backfills()] == names[::2]
    assert [one.job for one in await lb.jobs.backfills(after="job-02", limit=2)] == names[4:8:2]


@pytest.fixture
def american(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started now compares texts in the order of en_US."""
    made = ["localedef", "-i", "en_US", "-f", "UTF-8", str(tmp_path / "en_US.UTF-8")]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs localedef and the locale en_US")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")


@needs("valkey")
@pytest.mark.usefixtures("american")
async def test_they_are_listed_in_one_order_whatever_the_servers_locale() -> None:
    names = ["B", "Z", "a", "a b", "a-b", "ab", "c"]
    with standalone(valkey_binary()) as server:
        assert server.call("EVAL", "return 'a' < 'B' and 1 or 0", 0) == 1, "the server's order is that of the locale"
        async with Lockbeat(server.url) as lb:
            for name in names:
                slots = await hours(lb, 1, minutely(name))
                await lb.jobs.backfill(name, at(slots[0]))
            assert [one.job for one in await lb.jobs.backfills()] == names
            pages, after = list[str](), None
            while page := await lb.jobs.backfills(after=after, limit=2):
                pages, after = pages + [one.job for one in page], page[-1].job
    assert pages == names


# A line that never empties.
