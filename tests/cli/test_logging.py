"""Logs under `lockbeat run`: whatever a program has set up, its failures are logged, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Start, wait_until

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
