"""Each example does what its first lines say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def lines_of(example: str, tmp_path: Path) -> list[str]:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, example],
        cwd=EXAMPLES,
        env=os.environ | {"LOCKBEAT_URL": f"embedded://{tmp_path / 'store'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_hello_fires_until_it_is_told_to_stop(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lockbeat", "run", "hello"],
        cwd=EXAMPLES,
        env=os.environ | {"LOCKBEAT_URL": f"embedded://{tmp_path / 'store'}", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert first.strip(), errors


def test_a_zombie_is_refused_by_the_fence_in_the_database(tmp_path: Path) -> None:
    said = lines_of("fenced_sqlite.py", tmp_path)
    assert [line.partition(":")[2].strip() for line in said] == [
        "True",
        "True",
        "False",
        "True",
        "False",
        "final, by fast",
    ]


def test_each_order_is_done_once_though_a_worker_died(tmp_path: Path) -> None:
    said = lines_of("claims.py", tmp_path)
    assert said == [
        "order 3: begun by mortal, who died, and done by another",
        "12 orders done, 12 completed, 1 taken over",
    ]


def test_an_order_is_charged_once_and_a_dead_parcel_goes_out_when_it_was_mended(tmp_path: Path) -> None:
    said = lines_of("tasks.py", tmp_path)
    assert said == [
        "POST A-1: accepted",
        "POST A-2: accepted",
        "POST A-3: accepted",
        "POST A-1: is known",
        "A-1: 100 cents, in attempt 1",
        "A-1: sent to 1 Elm Road",
        "A-2: 200 cents, in attempt 2",
        "A-2: sent to 2 Oak Road",
        "A-3: 300 cents, in attempt 1",
        "A-3: dead",
        "dead after 2 attempts: A-3, no such address",
        "A-3: sent to 3 Ash Road",
    ]


def test_every_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"claims.py", "fenced_sqlite.py", "hello.py", "tasks.py"}
