"""For the tests of metrics: instances of a beat, and what they export, as Prometheus' own parser reads it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.beats import Beats

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: bytes) -> Samples:
    """By name and labels, as Prometheus' own parser has it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(text: bytes, name: str, **labels: str) -> float:
    """KeyError: there is none."""
    return read(text)[name, frozenset(labels.items())]


@pytest.fixture
def beats(url: str, namespace: str, shards: int) -> Beats:
    """A factory of instances of one beat on the test's store."""
    return Beats(url, namespace, shards)
