"""For the tests of metrics: instances of a beat, and what they export, as Prometheus' own parser reads it."""

from __future__ import annotations

import pytest

from tests.beats import Beats


@pytest.fixture
def beats(url: str, namespace: str, shards: int) -> Beats:
    """A factory of instances of one beat on the test's store."""
    return Beats(url, namespace, shards)
