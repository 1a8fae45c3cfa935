"""A test that hangs ends its process, which first says where each of its threads is. pytest-xdist runs what is left in another.

The tests' conftest takes the hooks from here. No signal ends it: lockbeat.sync looks at the handlers of a program, and a thread
that waits for a lock hears none.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Generator

import pytest

ENDLESS = 600.0
"""Seconds after which a part of a test counts as one that never ends. None takes a tenth of that, if it is not beside others."""
_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)  # what a test says there is captured


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STDERR])


def _ends(item: pytest.Item) -> Generator[None, object, object]:
    faulthandler.dump_traceback_later(ENDLESS, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


# Each part by itself: pytest cancels what dumps later when one fails, and what has failed may hang in what follows.
pytest_runtest_setup = pytest.hookimpl(wrapper=True, tryfirst=True)(_ends)
pytest_runtest_call = pytest.hookimpl(wrapper=True, tryfirst=True)(_ends)
pytest_runtest_teardown = pytest.hookimpl(wrapper=True, tryfirst=True)(_ends)
