"""Services to tell, and instances that tell them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockbeat.alarms import alarms
from tests.alarms.services import Services, services
from tests.beats import Beats


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setattr(alarms, "PAUSE", 0.001)
    with services() as made:
        yield made
        assert made.complaints == []


@pytest.fixture
def beats(url: str, namespace: str, shards: int) -> Beats:
    """A factory of instances of one beat on the test's store."""
    return Beats(url, namespace, shards)


@pytest.fixture(autouse=True)
def ends_its_threads(no_thread_stays: None) -> None:
    """Each test."""
