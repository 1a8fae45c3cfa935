"""The demo: sound in earnest, its checker not blind, and nothing left of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lockbeat.cli.demo._check import Effect, expected_slots, judge, read_effects
from lockbeat.jobs import Job, LedgerEntry
from lockbeat.triggers import Cron, Every

from .conftest import Start, wait_until
from .terminal import Terminal

JOBS = {
    job.name: job for job in (Job.declare("a", Every(1)), Job.declare("b", Cron("*/2 * * * * *")), Job.declare("slow", Every(2)))
}
DUE = expected_slots(JOBS.values(), 10_000, 14_000)


def effect(what: str, job: str, slot: int, fence: int = 0, by: str = "A", late: float = 0.01) -> Effect:
    return Effect(what, job, slot, by, fence or slot, slot / 1000 + late)  # type: ignore[arg-type]


def whole(*without: tuple[str, int]) -> list[Effect]:
    """Everything that is due begins and ends, but for some."""
    return [effect(what, *key) for key in DUE if key not in without for what in ("begin", "end")]


def test_what_is_due_comes_from_the_triggers_alone() -> None:
    assert len(DUE) == 4 + 2 + 2
    assert DUE[0] == ("a", 11_000)
    assert DUE[-1] == ("slow", 14_000)


def test_the_checker_passes_what_ran_once() -> None:
    verdict = judge(JOBS, DUE, whole(), {})
    assert verdict.sound
    assert len(verdict.fired) == verdict.due == 8
    assert verdict.latest is not None
    assert verdict.latest.late == pytest.approx(0.01)


def test_the_checker_sees_a_slot_that_ran_twice() -> None:
    verdict = judge(JOBS, DUE, [*whole(), effect("begin", "a", 12_000, 12_001, "B")], {})
    assert not verdict.sound
    assert verdict.duplicates == [("a", 12_000)]


def test_the_checker_sees_a_slot_that_vanished() -> None:
    verdict = judge(JOBS, DUE, whole(("b", 12_000)), {})
    assert not verdict.sound
    assert verdict.missed == [("b", 12_000)]


def test_a_slot_that_the_ledger_calls_missed_is_missed() -> None:
    entry = LedgerEntry("b", 12_000, "missed", "no instance fired it")
    assert judge(JOBS, DUE, whole(("b", 12_000)), {("b", 12_000): entry}).missed == [("b", 12_000)]


def test_the_checker_sees_a_run_before_its_time_and_one_that_is_no_slot() -> None:
    early = [effect("begin", "a", 15_000, late=-0.2)]
    assert judge(JOBS, DUE, whole() + early, {}).early == early
    assert judge(JOBS, DUE, [*whole(), effect("begin", "b", 13_000)], {}).strays == [("b", 13_000)]


def test_a_slot_skipped_by_policy_is_counted_with_its_reason() -> None:
    verdict = judge(JOBS, DUE, whole(("slow", 12_000)), {("slow", 12_000): LedgerEntry("slow", 12_000, "skipped", "overlap: x")})
    assert verdict.sound
    assert verdict.skipped == {("slow", 12_000): "overlap: x"}


def test_a_run_that_was_cut_short_must_be_in_the_ledger() -> None:
    effects = [*whole(("slow", 12_000)), effect("begin", "slow", 12_000)]
    lost = LedgerEntry("slow", 12_000, "lost", "its lease expired")
    assert judge(JOBS, DUE, effects, {("slow", 12_000): lost}).sound
    verdict = judge(JOBS, DUE, effects, {("slow", 12_000): LedgerEntry("slow", 12_000, "done")})
    assert verdict.unexplained == [("slow", 12_000)]
    assert not verdict.sound


def test_a_write_with_an_old_fence_is_refused() -> None:
    late = [effect("begin", "slow", 12_000, 1), effect("begin", "slow", 14_000, 2), effect("end", "slow", 12_000, 1)]
    verdict = judge(JOBS, [("slow", 12_000)], late, {("slow", 12_000): LedgerEntry("slow", 12_000, "lost")})
    assert [each.fence for each in verdict.refused] == [1]
    assert verdict.cut == {("slow", 12_000): "A"}


def test_effects_are_read_line_by_line() -> None:
    line = '{"what": "begin", "job": "a", "slot": 1000, "by": "A", "fence": 7, "at": 1.5}\n'
    assert read_effects(line * 2) == [Effect("begin", "a", 1000, "A", 7, 1.5)] * 2


def test_a_short_demo_is_sound_and_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    temp = tmp_path / "t"
    temp.mkdir()
    process = start("demo", "--seconds", "8", TMPDIR=str(temp))
    assert process.popen.wait(40) == 0, process.out + process.err
    assert process.err == ""
    last = process.out.splitlines()[-1]
    assert last.endswith("duplicates 0, missed 0")
    for told in ("kill -9 ", "SIGSTOP to ", "SIGCONT to ", "is back", "SIGTERM to all", "slots due", "shutdown"):
        assert told in process.out
    assert process.out.isascii()
    assert "A, B, C: the instance that ran it; skip: " in process.out
    rows = process.out.partition("\nslot ")[2].partition("\n\n")[0].splitlines()[1:]
    assert len([row for row in rows if not row[8:].startswith(".")]) == 8, "a row for each second"
    assert list(temp.iterdir()) == []


def test_on_a_terminal_the_demo_shows_how_things_stand_until_it_is_interrupted() -> None:
    with Terminal("demo") as terminal:
        terminal.says("all alive, ")
        terminal.says("lock job:backup  ")
        terminal.says(" fired")
        terminal.says("missed 0")
        terminal.says("kill -9 ")
        terminal.types("\x03")
        assert terminal.ends() == 130
    assert "slots due" not in terminal.said
    assert terminal.said.endswith("lockbeat: interrupted; the instances and the store are ended\r\n")
    assert terminal.said.rindex("\x1b[?25h") > terminal.said.rindex("\x1b[?25l"), "the cursor is back"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
@pytest.mark.parametrize(("number", "when"), [(signal.SIGINT, "starting"), (signal.SIGTERM, "all alive")])
def test_an_interrupted_demo_ends_all_that_it_started(start: Start, tmp_path: Path, number: int, when: str) -> None:
    temp = tmp_path / "t"
    temp.mkdir()
    mark = f"{os.getpid()}-{number}"
    process = start("demo", TMPDIR=str(temp), LOCKBEAT_TEST_MARK=mark)
    process.says(when)
    assert len(list(temp.iterdir())) == 1
    assert process.end(number) == 128 + number
    assert process.err == "lockbeat: interrupted; the instances and the store are ended\n"
    assert list(temp.iterdir()) == []

    def gone() -> bool:
        return not [each for each in Path("/proc").iterdir() if each.name.isdigit() and _marked(each, mark)]

    wait_until(gone, "no process of the demo is left")


def _marked(process: Path, mark: str) -> bool:
    try:
        return f"LOCKBEAT_TEST_MARK={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
