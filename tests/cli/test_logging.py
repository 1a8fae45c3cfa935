"""Logs under `lockbeat run`: whatever a program has set up, its failures are logged, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Lockbeat, Start, wait_until

PROGRAM = """
import logging, logging.config
from lockbeat import Beat

beat = Beat()
runs = []

@beat.every(0.2)
async def fails(run):
    LATE
    runs.append(1)
    if len(runs) == 2:
        run.log.warning("theirs")
        raise ValueError("no luck")

HANDLER = {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}}
FORMATTER = {"mine": {"format": "MINE %(name)s %(message)s"}}

def configure(**more):
    logging.config.dictConfig({"version": 1, "handlers": HANDLER, "formatters": FORMATTER, **more})

EARLY
"""
OURS, THEIRS = "WARNING fails@", "MINE lockbeat.run fails@"


@pytest.mark.parametrize(
    ("early", "late", "by_them"),
    [
        ("", "", False),
        ('configure(loggers={"app": {"handlers": ["mine"]}})', "", False),
        ("", 'configure(loggers={"app": {"handlers": ["mine"]}})', False),
        ("", 'logging.getLogger("lockbeat").disabled = logging.getLogger("lockbeat.run").disabled = True', False),
        ('configure(root={"handlers": ["mine"]})', "", True),
        ("", 'configure(root={"handlers": ["mine"]})', True),
        ('configure(loggers={"lockbeat": {"handlers": ["mine"]}})', "", True),
        ("", 'configure(loggers={"lockbeat": {"handlers": ["mine"]}})', True),
        ('logging.getLogger("lockbeat").addHandler(logging.NullHandler())', "", False),
        ("logging.getLogger().addHandler(logging.NullHandler())", "", False),
    ],
    ids=[
        "nothing",
        "others named",
        "others named late",
        "disabled",
        "root",
        "root late",
        "ours",
        "ours late",
        "null handler",
        "null handler of the root",
    ],
)
def test_a_failure_is_logged_once_whatever_the_program_set_up(
    start: Start, module: Callable[..., str], store: str, early: str, late: str, by_them: bool
) -> None:
    path = module(PROGRAM.replace("EARLY", early).replace("LATE", late or "pass"))
    process = start("run", path, "--url", store)
    wait_until(lambda: "ValueError: no luck\n" in process.err.partition("Traceback")[2], "the failure is logged")
    assert process.end() == 0
    said: Any = process.err
    assert said.count("its last: ValueError: no luck") == 1
    assert said.count("Traceback") == 1
    assert said.count(": theirs") == 1
    assert ("MINE lockbeat " in said) is by_them


JSON = """
import logging
from lockbeat import Beat

beat = Beat()
log = logging.getLogger("app")

@beat.every(0.2)
async def fails(run):
    log.warning("theirs")
    run.log.warning("ours")
    raise ValueError("no luck")

EARLY
"""


def test_lines_of_json_name_the_run_and_nothing_is_logged_twice(start: Start, module: Callable[..., str], store: str) -> None:
    process = start("run", module(JSON.replace("EARLY", "")), "--url", store, "--log-format", "json")
    wait_until(lambda: "ValueError: no luck" in process.err, "the failure is logged")
    assert process.end() == 0
    lines = [json.loads(line) for line in process.err.splitlines()]
    runs = [line for line in lines if "task_id" in line]
    first = [line for line in runs if line["task_id"] == runs[0]["task_id"]]
    assert sorted(line["message"].partition(": ")[2] or line["message"] for line in first[:2]) == ["ours", "theirs"]
    assert len(first) == 3
    for line in first:
        assert (line["job"], line["attempt"]) == ("fails", 1)
        assert line["fence"] > 0
        assert line["slot"].endswith("+00:00")
    assert "ValueError: no luck" in first[2]["exception"]


def test_logging_of_the_program_s_own_is_left_alone_and_that_is_said(
    start: Start, module: Callable[..., str], store: str
) -> None:
    early = 'logging.basicConfig(format="MINE %(message)s")'
    process = start("run", module(JSON.replace("EARLY", early)), "--url", store, "--log-format", "json")
    wait_until(lambda: "no luck" in process.err, "the failure is logged")
    assert process.end() == 0
    assert process.err.count("--log-format json is left aside") == 1
    assert "MINE theirs" in process.err


def test_another_format_is_wrong_usage(lockbeat: Lockbeat, module: Callable[..., str]) -> None:
    answer = lockbeat("run", module(JSON.replace("EARLY", "")), "--log-format", "xml")
    assert answer.code == 2
    assert "'xml' is neither text nor json" in answer.err
