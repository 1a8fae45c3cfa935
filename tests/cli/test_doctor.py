"""doctor: what it finds, and that it changes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from lockbeat.embedded import EmbeddedServer
from lockbeat.monitor import TRIALS, commands
from lockbeat.monitor._server import denied, refused
from tests.conftest import needs
from tests.servers import standalone, valkey_binary

from .conftest import Answer, Lockbeat


def finding(answer: Answer, check: str) -> dict[str, str]:
    [found] = [each for each in answer.json["checks"] if each["check"] == check]
    return dict(found)


@pytest.fixture
def user(raw: Any, server: EmbeddedServer) -> Iterator[Any]:
    """Makes a user with some rights, and gives the URL to connect as it."""

    def make(*rules: str) -> str:
        raw.execute_command("ACL", "SETUSER", "them", "reset", "on", ">pw", "+client", *rules)
        return f"unix://them:pw@{server.socket_path}"

    yield make
    raw.execute_command("ACL", "DELUSER", "them")


def test_a_fit_store_passes_and_nothing_is_written(lockbeat: Lockbeat, server: EmbeddedServer, raw: Any) -> None:
    answer = lockbeat("doctor", "--url", f"unix://{server.socket_path}", "--json")
    assert answer.code == 0
    assert set(answer.json) == {"store", "namespace", "state", "checks"}
    states = {each["check"]: each["state"] for each in answer.json["checks"]}
    fit = ("server", "role", "rights", "scripts", "eviction", "replication", "clock", "latency", "shards", "format")
    assert {check: states[check] for check in fit} == dict.fromkeys(fit, "ok")
    assert states["persistence"] == "warn"  # this one keeps nothing
    assert raw.dbsize() == 0


@pytest.mark.parametrize(("key", "value", "of"), [("fence", "7 7", "1, of an older"), ("format", "3", "3, of a newer")])
def test_a_store_in_another_format_is_not_fit_and_every_command_says_so_in_one_sentence(
    lockbeat: Lockbeat, server: EmbeddedServer, raw: Any, key: str, value: str, of: str
) -> None:
    raw.set(f"{{lockbeat:0}}:{key}", value)
    url, says = (
        f"unix://{server.socket_path}",
        f"namespace 'lockbeat' is in format {of} version of lockbeat, and this one speaks format 2",
    )
    answer = lockbeat("doctor", "--url", url, "--json")
    assert (answer.code, answer.json["state"]) == (1, "fail")
    found = finding(answer, "format")
    assert (found["state"], found["says"]) == ("fail", says)
    assert found["remedy"].startswith("use that version, or another namespace")
    assert "jobs" not in {each["check"] for each in answer.json["checks"]}, "which are not read as they were written"
    refused = lockbeat("ls", "--url", url)
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"lockbeat: {url}, {says.replace(' is in', ', is in')}: {found['remedy']}\n"
    assert [*raw.scan_iter()] == [f"{{lockbeat:0}}:{key}"]


def test_a_format_that_can_not_be_read_is_not_fit(lockbeat: Lockbeat, server: EmbeddedServer, raw: Any) -> None:
    raw.set("{lockbeat:0}:format", "two")
    answer = lockbeat("doctor", "--url", f"unix://{server.socket_path}", "--json")
    assert answer.code == 1
    assert "{lockbeat:0}:format" in finding(answer, "format")["says"]


def test_a_store_with_jobs_that_nobody_fires_is_not_fit(lockbeat: Lockbeat, server: EmbeddedServer, raw: Any) -> None:
    now_ms = round(time.time() * 1000)
    slots = {"late": now_ms - 60_000, "soon": now_ms + 60_000, "just": now_ms - 100, "ended": -1}
    for name, slot in slots.items():
        raw.hset("{lockbeat:0}:job:slot", name, f"{slot} {slot if slot > 0 else now_ms - 60_000} r.r 2025b")
        raw.zadd("{lockbeat:0}:job:due", {name: now_ms + (300 if name == "late" else 0)})  # handed out a moment ago
    url = f"unix://{server.socket_path}"
    answer = lockbeat("doctor", "--url", url, "--json")
    raw.delete("{lockbeat:0}:job:slot", "{lockbeat:0}:job:due")
    assert answer.code == 1
    assert finding(answer, "jobs")["state"] == "fail"
    assert finding(answer, "jobs")["says"].startswith("1 job is overdue, late by 6")
    assert finding(lockbeat("doctor", "--url", url, "--json"), "jobs")["state"] == "ok"


def test_an_embedded_store_is_told_to_guard_one_machine(lockbeat: Lockbeat, store: str) -> None:
    answer = lockbeat("doctor", "--url", store)
    assert answer.code == 0
    assert any(line.split()[:2] == ["warn", "store"] and "this machine only" in line for line in answer.out.splitlines())
    assert answer.out.splitlines()[-1] == "fit, with 2 warnings"


def test_eviction_is_a_warning_with_its_remedy(lockbeat: Lockbeat, server: EmbeddedServer, raw: Any) -> None:
    raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        answer = lockbeat("doctor", "--url", f"unix://{server.socket_path}", "--json")
    finally:
        raw.config_set("maxmemory-policy", "noeviction")
    found = finding(answer, "eviction")
    assert found["state"] == "warn"
    assert found["remedy"] == "CONFIG SET maxmemory-policy noeviction"


NEEDED = ["~{lockbeat:*", "&{lockbeat*", "+@all"]


@pytest.mark.parametrize(
    ("rules", "lacks"),
    [
        ([*NEEDED, "-evalsha"], "+evalsha"),
        ([*NEEDED, "-eval"], "+eval"),
        ([*NEEDED, "-publish"], "+publish"),
        ([*NEEDED, "-subscribe"], "+subscribe"),
        ([*NEEDED, "-zrangebylex", "-hget"], "+hget +zrangebylex"),
        (["~other:*", "&{lockbeat*", "+@all"], "~{lockbeat:*"),
        (["~{lockbeat:*", "resetchannels", "+@all"], "&{lockbeat*"),
        (["%R~{lockbeat:*", "&{lockbeat*", "+@all"], "~{lockbeat:*"),
        (["%W~{lockbeat:*", "&{lockbeat*", "+@all"], "~{lockbeat:*"),
        ([*NEEDED, "-time", "-hvals"], "+time"),
        (["~{lockbeat:*", "resetchannels", "+@all", "-evalsha"], "+evalsha &{lockbeat*"),
    ],
)
def test_a_right_that_is_missing_is_named_and_mended_by_the_remedy(
    lockbeat: Lockbeat, user: Any, raw: Any, rules: list[str], lacks: str
) -> None:
    url = user(*rules)
    answer = lockbeat("doctor", "--url", url, "--json")
    found = finding(answer, "rights")
    assert (answer.code, found["state"]) == (1, "fail")
    assert found["says"] == f"user them lacks {lacks}"
    raw.execute_command(*found["remedy"].split())
    assert lockbeat("doctor", "--url", url).code == 0
    assert raw.dbsize() == 0


def test_a_server_that_tells_nothing_is_unknown_and_no_crash(lockbeat: Lockbeat, user: Any) -> None:
    url = user(*NEEDED, "-info", "-config", "-acl", "-script", "-time", "-ping")
    answer = lockbeat("doctor", "--url", url, "--json")
    states = {each["check"]: each["state"] for each in answer.json["checks"]}
    for check in ("server", "scripts", "eviction", "persistence", "replication", "clock", "latency"):
        assert states[check] == "unknown"


def test_a_wrong_password_is_one_line(lockbeat: Lockbeat, server: EmbeddedServer) -> None:
    answer = lockbeat("doctor", "--url", f"unix://them:wrong@{server.socket_path}")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.count("\n") == 1
    assert "wrong@" not in answer.err


REFUSALS = [
    "ERR This Redis command is not allowed from script script: 0d, on @user_script:3.",
    "ERR This Valkey command is not allowed from script",
    "ERR Lua scripts without any input keys are not supported",
    "ERR Unknown Redis command called from script script: 0d",
    "ERR unknown command 'eval', with args beginning with: ",
]


@pytest.mark.parametrize("said", REFUSALS)
def test_a_service_that_runs_no_such_script_is_known_by_its_words(said: str) -> None:
    assert refused(said)
    assert not denied(said)


def test_what_is_wrong_with_a_trial_is_no_refusal_of_the_service() -> None:
    for said in (
        "",
        "ERR hash value is not an integer",
        "WRONGTYPE Operation against a key",
        "NOPERM this user has no permissions",
    ):
        assert not refused(said)


@needs("valkey")
@pytest.mark.parametrize("command", ["TIME", "EVAL", "EVALSHA"])
def test_a_store_that_lacks_a_command_is_not_fit_and_says_which(lockbeat: Lockbeat, command: str) -> None:
    with standalone(valkey_binary(), extra=[f'rename-command {command} ""']) as lacking:
        answer = lockbeat("doctor", "--url", lacking.url, "--json")
    found = finding(answer, "scripts")
    assert (answer.code, found["state"]) == (1, "fail")
    assert f"does not run our scripts: {command}: " in found["says"]


def test_every_command_that_scripts_call_is_tried() -> None:
    assert commands() - TRIALS.keys() == set()
