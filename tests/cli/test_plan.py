"""plan: what a deploy would do, for people, for programs and for a pipeline."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Lockbeat as Client
from lockbeat.jobs import Job
from lockbeat.triggers import Every
from tests.deploys import Instance

from .conftest import Lockbeat, left, using

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A module with such a body behind a beat; what names the beat."""

    def write(body: str, name: str = "program") -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(f"from lockbeat import Beat\n\nbeat = Beat(version=7)\n\n{textwrap.dedent(body)}")
        return f"{path}:beat"

    return write


def declare(store: str, *jobs: Job) -> None:
    async def start(lb: Client) -> None:
        await Instance(lb, *jobs).start()

    using(store, start)


REPORT = '@beat.every(3600, overlap="allow")\ndef report():\n    pass\n'


def test_an_empty_store_stays_empty_and_the_exit_code_says_that_there_is_something_to_do(
    lockbeat: Lockbeat, store: str, raw: Any, write: Write
) -> None:
    answer = lockbeat("plan", write(REPORT), "--url", store)
    assert (answer.code, answer.err) == (3, "")
    head, added, slots, unchanged, lost, doubled = answer.out.splitlines()
    assert head.endswith("program.py:beat, version 7")
    assert added == "added    report  every 1h"
    assert slots.startswith("         next slots: ")
    assert unchanged == "unchanged: 0 jobs"
    assert lost.startswith("lost: none; ")
    assert doubled.startswith("doubled: none; ")
    assert left(raw) == set()
    assert not list(raw.scan_iter()), "not even the format"


def test_there_is_nothing_to_do_after_the_deploy(lockbeat: Lockbeat, store: str, raw: Any, write: Write) -> None:
    declare(store, Job.declare("report", Every(3600), overlap="allow", origin="code"))
    answer = lockbeat("plan", write(REPORT), "--url", store)
    assert answer.code == 0
    assert "nothing to do; unchanged: 1 job" in answer.out


def test_json_and_people_are_told_what_changes_and_what_is_removed(
    lockbeat: Lockbeat, store: str, raw: Any, write: Write
) -> None:
    declare(store, *(Job.declare(name, Every(60), origin="code") for name in ("report", "left")))
    target = write(REPORT)
    answer = lockbeat("plan", target, "--url", store)
    assert answer.code == 3
    assert "         trigger: every 1m -> every 1h" in answer.out
    assert "         overlap: skip -> allow" in answer.out
    assert "         retires at " in answer.out or "         retires ten minutes after" in answer.out
    told = lockbeat("plan", target, "--url", store, "--json")
    assert told.code == 3
    removed, changed = told.json["differences"]
    assert (removed["job"], removed["kind"]) == ("left", "removed")
    assert changed["changed"]["overlap"] == {"before": "skip", "after": "allow"}
    assert (len(changed["before"]), len(changed["after"])) == (3, 3)
    assert (told.json["lost"], told.json["doubled"], told.json["version"]) == ([], [], "7")


def test_it_looks_at_the_namespace_that_is_named(lockbeat: Lockbeat, store: str, raw: Any, write: Write) -> None:
    declare(store, Job.declare("report", Every(3600), overlap="allow", origin="code"))
    assert lockbeat("plan", write(REPORT), "--url", store, "--namespace", "other").code == 3


def test_a_store_that_is_away_and_a_module_that_is_not_there_are_one_line(lockbeat: Lockbeat, write: Write) -> None:
    lockbeat("plan", write(REPORT)).refuses(1, "can't reach redis://127.0.0.1:1")
    lockbeat("plan", "nowhere:beat").refuses(2, "no module named 'nowhere'")


def test_a_retired_job_is_shown_as_such(lockbeat: Lockbeat, store: str, raw: Any) -> None:
    async def retire(lb: Client) -> None:
        import redis

        from tests.deploys import gone

        old = await Instance(lb, *(Job.declare(name, Every(60), origin="code") for name in ("report", "left"))).start()
        new = await Instance(lb, Job.declare("report", Every(60), origin="code")).start()
        with redis.Redis(unix_socket_path=raw.connection_pool.connection_kwargs["path"]) as plain:
            await gone(plain, lb, old, seconds=700)
        await new.sign()

    using(store, retire)
    row = next(line for line in lockbeat("ls", "--url", store).out.splitlines() if line.startswith("left"))
    assert " retired " in row
    assert "no instance that lives declares it" in row
    [found] = [each for each in lockbeat("ls", "--url", store, "--json").json if each["job"] == "left"]
    assert found["retired_at"] is not None
    assert found["next_slot"] is None
    assert "is retired" in lockbeat("next", "left", "--url", store).out
    assert "retire" in lockbeat("changes", "left", "--url", store).out
    assert "left is retired" in lockbeat("why", "left", "--url", store).out
