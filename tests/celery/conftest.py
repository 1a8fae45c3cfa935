"""An arena of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.celery.arena import Arena, arena


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Arena]:
    """The broker apart from the store."""
    with arena(tmp_path) as made:
        yield made


@pytest.fixture
def one_server(tmp_path: Path) -> Iterator[Arena]:
    """The store in the broker, as it is by default."""
    with arena(tmp_path, apart=False) as made:
        yield made


@pytest.fixture(autouse=True)
def ends_its_threads(no_thread_stays: None) -> None:
    """Each test."""
