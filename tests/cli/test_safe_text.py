"""Whatever names, owners, params and errors hold: no command, error line or log line carries it to a terminal as it is."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from typing import Any

import pytest
import typer

from lockbeat import Beat, Claim
from lockbeat import Lockbeat as Client
from lockbeat.cli._command import app
from lockbeat.jobs import Job
from lockbeat.triggers import Every
from lockbeat.values.visible import UNSEEN, visible, visible_json

from .conftest import Lockbeat, Start, wait_until

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt.exe\u2066\u200f\u200e\x7f\x85\u2028\r\n\t\x08|"
"""A title, a cleared screen, colour in C1, a name turned round, marks, DEL, and every kind of line end."""
JOB, OWNER, QUEUE, KEY, NAME = (f"{EVIL}{word}" for word in ("job", "owner", "queue", "key", "日本"))


class WorseError(Exception):
    """With a note, and lines."""


def raised() -> BaseException:
    try:
        raise WorseError(f"{EVIL}first\n{EVIL}second")
    except WorseError as error:
        error.add_note(f"note {EVIL}")
        return error


def is_safe(text: str) -> bool:
    return all(char == "\n" or unicodedata.category(char) not in UNSEEN for char in text)


@pytest.fixture
def hostile(store: str) -> dict[str, str]:
    """A store where every text is hostile; what the commands are asked for."""

    async def fill() -> dict[str, str]:
        beat = Beat(store, owner=OWNER, queue=QUEUE)
        beat.every(0.05, name=JOB, queue=QUEUE)(fails)
        async with Client(store, owner=OWNER) as lb:
            async with beat.lifespan():
                while not (failed := [each for each in await lb.jobs.ledger(JOB, 1000) if each.state == "failed"]):
                    await asyncio.sleep(0.01)
            slot_ms = failed[-1].slot_ms
            # From here on it has a slot to come, and does not run.
            await lb.jobs.put(Job.declare(JOB, Every(3600), queue=QUEUE, origin="code"))
            info = {"pid": 1, "host": EVIL, "schedules": True, "queues": [QUEUE], "jobs": 1, "concurrency": 1, "tasks": [NAME]}
            await lb.store.call("beat/heartbeat", 0, owner=OWNER, info=json.dumps(info), ttl_ms=60_000, version="")
            await lb.locks.try_acquire(KEY, OWNER, 60)
            await lb.calendars.put("evil", {"2030-01-01": EVIL})
            claim = await lb.claims.acquire(KEY, OWNER, lease=60, queue=QUEUE)
            assert isinstance(claim, Claim)
            await lb.claims.fail(claim, raised())
            assert await lb.claims.acquire(KEY, OWNER, lease=60, queue=QUEUE)
            dead = await lb.tasks.spawn(NAME, {EVIL: [EVIL]}, queue=QUEUE, max_attempts=1, headers={EVIL: EVIL})
            [task] = await lb.tasks.claim(QUEUE, OWNER)
            await lb.tasks.fail(task, raised())
            done = await lb.tasks.spawn(NAME, queue=QUEUE)
            [task] = await lb.tasks.claim(QUEUE, OWNER)
            await lb.tasks.complete(task, {EVIL: EVIL})
            runs = await lb.tasks.spawn(NAME, EVIL, queue=QUEUE)
            await lb.tasks.claim(QUEUE, OWNER, lease=60)
        return {"dead": dead.task_id, "done": done.task_id, "runs": runs.task_id, "slot": str(slot_ms)}

    async def fails() -> None:
        raise raised()

    return asyncio.run(fill())


COMMANDS: dict[str, list[list[str]]] = {
    "ls": [[], [JOB], [EVIL]],
    "next": [[JOB], [EVIL], [f"{EVIL}\udcff"]],
    "ledger": [[JOB], [EVIL]],
    "history": [[], ["--job", JOB], ["--job", EVIL], ["--tag", EVIL], ["--state", EVIL], ["--since", EVIL], ["--after", EVIL]],
    "why": [[JOB, "SLOT"], [JOB, "1000000000000"], [JOB, EVIL], [EVIL, "SLOT"]],
    "calendars": [[]],
    "calendar": [["evil"], [EVIL], ["put", "evil", f"2030-01-01 {EVIL}"], ["put", EVIL, EVIL], ["put", "x", "--ics", EVIL]],
    "trigger": [[JOB, "--reason", EVIL, "--by", EVIL], [JOB, EVIL], [EVIL], [JOB, "--overlap", EVIL]],
    "changes": [[JOB], [EVIL]],
    "skip-next": [[JOB, "--reason", EVIL, "--by", EVIL], [EVIL], [JOB, "--dry-run"]],
    "pause": [[JOB, "--reason", EVIL, "--by", EVIL], [EVIL], [JOB], ["--tag", EVIL], ["--all", "--until", EVIL]],
    "resume": [[JOB, "--by", EVIL, "--reason", EVIL], [JOB], [EVIL], ["--queue", EVIL], [JOB, "--catchup", EVIL]],
    "backfill": [
        [JOB, "--from", "1h", "--reason", EVIL, "--by", EVIL],
        [JOB, "--pause", "--reason", EVIL],
        [JOB],
        [JOB, "--cancel", "--by", EVIL],
        [EVIL],
        [JOB, "--from", EVIL],
    ],
    "backfills": [[], ["--state", EVIL], ["--after", EVIL]],
    "locks": [[], ["--owner", OWNER], ["--owner", EVIL]],
    "instances": [[]],
    "top": [["--once"]],
    "tasks": [[], ["--queue", QUEUE], ["--queue", EVIL], ["--state", EVIL]],
    "task": [["DEAD"], ["DONE"], ["RUNS"], [EVIL]],
    "claims": [["--queue", QUEUE], ["--queue", EVIL], ["--stats"]],
    "dead": [[], ["--queue", QUEUE], ["--queue", EVIL]],
    "doctor": [[], ["--namespace", EVIL]],
    "spawn": [[NAME, "--queue", QUEUE, "--delay", "60"], [NAME, EVIL], [NAME, "--header", EVIL], [EVIL, "--queue", EVIL]],
    "retry": [["RUNS"], [EVIL]],
    "cancel": [["DONE"], [EVIL]],
    "redrive": [["--queue", EVIL], ["--queue", QUEUE]],
    "purge": [["--queue", EVIL, "--yes"], ["--queue", QUEUE, "--yes"], ["--state", EVIL, "--yes"]],
    "release-all": [[OWNER], [EVIL]],
    "unlock": [[KEY], [EVIL]],
    "put": [
        ["x", "--function", EVIL],
        [JOB, "--every", "60"],
        [EVIL],
        ["x", EVIL],
        ["x", "--cron", EVIL],
        ["x", "--option", EVIL],
    ],
    "apply": [[EVIL, "--origin", "billing"], ["/dev/null", "--origin", EVIL]],
    "delete": [[EVIL], [JOB]],
    "run": [[EVIL], [f"{EVIL}:{EVIL}"]],
    "beat": [[EVIL]],
    "worker": [[EVIL]],
    "plan": [[EVIL], [f"{EVIL}:{EVIL}"]],
    "exec": [
        ["x", "--slot", EVIL, "--", EVIL],
        ["x", "--ttl", EVIL, "--", EVIL],
        ["x", "--timezone", EVIL, "--slot", "@daily", EVIL],
    ],
    "import": [["crontab", EVIL, "--dry-run"], *([source, EVIL] for source in ("celery", "redbeat", "django-celery-beat"))],
    "config": [[EVIL], [f"{EVIL}:{EVIL}"]],
    "check": [[EVIL], ["live", "--health-port", EVIL]],
    "shadow": [[], ["--since", EVIL]],
    "web": [["--port", EVIL], ["--host", EVIL], ["--port", "0", "--prefix", EVIL]],
    "server": [[f"/dev/null/{EVIL}"]],
    EVIL: [[]],
    "demo": [],  # what it shows is its own; it is a program of many seconds
}
NO_URL = {"run", "beat", "worker", "exec", "config", "check", "server", EVIL}


def asks(hostile: dict[str, str], store: str) -> list[list[str]]:
    """Every command line, the deleting ones last."""
    lines = []
    for command, variants in COMMANDS.items():
        for args in variants:
            known = [hostile.get(arg.lower(), arg) if arg.isupper() else arg for arg in args]
            lines.append([command, *known] if command in NO_URL else [command, *known, "--url", store])
    return lines


def test_every_command_is_in_the_table() -> None:
    there = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert there <= COMMANDS.keys()


@pytest.mark.parametrize("form", ["plain", "json", "terminal"])
def test_no_command_carries_hostile_text_to_a_terminal(
    lockbeat: Lockbeat, store: str, hostile: dict[str, str], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "terminal":
        for module in ("_output", "_app"):
            monkeypatch.setattr(f"lockbeat.cli.{module}.is_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", "250")
    there = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    said = ""
    for line in asks(hostile, store):
        if line[0] != EVIL and line[0] not in there:
            continue
        takes_json = line[0] in there and any("--json" in each.opts for each in there[line[0]].params)
        answer = lockbeat(*line, *(["--json"] if form == "json" and takes_json else []))
        for text in (answer.out, answer.err):
            assert is_safe(text), f"{line}: {text!r}"
        said += answer.out + answer.err
        if form == "json" and takes_json and answer.code == 0:
            assert line[0] != "locks" or "owned" not in answer.out or answer.json[0]["key"] == KEY
    assert said.count("owned") > 50, "the hostile texts were there to be shown"


def test_why_tells_type_and_first_line(lockbeat: Lockbeat, store: str, hostile: dict[str, str]) -> None:
    answer = lockbeat("why", JOB, hostile["slot"], "--url", store)
    assert f": WorseError: {visible(EVIL.splitlines()[0])}" in answer.out
    assert answer.out.count("\n") == 1


MODULE = """
import logging
from lockbeat import Beat, Claim
EVIL = {evil!r}
beat = Beat(queue=EVIL + "queue")

@beat.every(0.2, name=EVIL + "job")
async def fails(run):
    run.log.warning("theirs " + EVIL)
    logging.getLogger("their.own").warning("own " + EVIL)
    raise ValueError(EVIL + "first\\nsecond")
"""


def test_no_log_line_carries_it_either(start: Start, module: Any, store: str) -> None:
    path = module(MODULE.format(evil=EVIL))
    process = start("run", path, "--url", store, "--verbose")
    wait_until(lambda: "failed in attempt" in process.err and "Traceback" in process.err, "the failure is logged")
    assert process.end() == 0
    assert is_safe(process.err.replace("\t", " ")), repr(process.err)
    for words in ("theirs", "own", "its last: ValueError"):
        assert words in process.err
    failed = next(line for line in process.err.splitlines() if "failed in attempt" in line)
    assert "first" not in failed, "the message is one line, the first"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_ends_no_command(
    start: Start, store: str, hostile: dict[str, str], encoding: str
) -> None:
    for args in (["tasks"], ["tasks", "--json"], ["next", "Käse"]):
        process = start(*args, "--url", store, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        process.popen.wait(90)
        assert b"Traceback" not in process.err_file.read_bytes()
        assert process.popen.returncode == (1 if args[0] == "next" else 0)
        if "--json" in args:
            assert json.loads(process.out_file.read_bytes().decode(encoding))["tasks"]


@pytest.mark.parametrize("char", [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u200e", "\u200f", "\u061c", "\ufeff"])
def test_what_a_terminal_acts_on_is_spelled_out(char: str) -> None:
    assert is_safe(visible(f"a{char}b").replace("\n", "?"))
    assert visible(f"a{char}b", keep=char) == f"a{char}b"
    assert is_safe(visible_json([f"a{char}b"]))
    assert json.loads(visible_json([f"a{char}b"])) == [f"a{char}b"]


def test_bidirectional_controls_and_lone_surrogates_are_spelled_out_and_letters_are_not() -> None:
    odd = [*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\ud800", "\udcff", "\U000e0041", "\u2028"]
    for char in odd:
        assert is_safe(visible(char))
        assert json.loads(visible_json(char)) == char
    for plain in ("Käse", "日本語", "עברית", "🎉", "a b"):
        assert visible(plain) == plain
        assert visible_json(plain) == f'"{plain}"'
