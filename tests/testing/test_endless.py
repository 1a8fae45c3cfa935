"""A test that hangs is a failure with a trace, and the others run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import threading

import pytest

from tests import endless

never = threading.Event()


@pytest.fixture
def soon():
    begun = threading.Event()
    threading.Thread(target=another, args=(begun,), daemon=True).start()
    begun.wait()
    endless.ENDLESS = 0.1  # for what follows in this process


def another(begun):
    begun.set()
    never.wait()


@pytest.fixture
def stuck():
    yield
    never.wait()


def test_it_hangs(soon):
    never.wait()


def test_it_fails_and_then_hangs(stuck):
    endless.ENDLESS = 0.1
    assert never.is_set()


def test_it_passes():
    pass
"""


def test_one_that_hangs_fails_with_all_its_threads_and_the_others_run(tmp_path: Path) -> None:
    """So does one whose fixture hangs after it has failed."""
    (tmp_path / "test_theirs.py").write_text(TESTS)
    plugins = ("-p", "no:cacheprovider", "-p", "xdist", "-p", "tests.endless", "-n", "1", "--rootdir", str(tmp_path))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert ran.returncode == 1, ran
    for name in ("test_it_hangs", "test_it_fails_and_then_hangs"):
        assert f"crashed while running 'test_theirs.py::{name}'" in ran.stdout
    assert " in another" in ran.stderr
    assert "1 passed" in ran.stdout
