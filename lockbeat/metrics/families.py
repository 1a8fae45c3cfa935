"""prometheus_client's metric families, by less writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lockbeat.counting import Spread
from lockbeat.errors import MissingExtra

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

try:
    from prometheus_client import exposition
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
except ImportError as error:
    raise MissingExtra("metrics need another package: pip install 'lockbeat[prometheus]'") from error

Labels = tuple[str, ...]
TEXT = "text/plain; version=0.0.4; charset=utf-8"


def counter(name: str, says: str, values: Mapping[Any, float] | float, labels: Labels = ()) -> Metric:
    """`name` ends in _total."""
    return _filled(CounterMetricFamily(name, says, labels=labels), values)


def gauge(name: str, says: str, values: Mapping[Any, float] | float, labels: Labels = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, says, labels=labels), values)


def histogram(name: str, says: str, spreads: Mapping[Any, Spread] | Spread, labels: Labels = ()) -> Metric:
    family = HistogramMetricFamily(name, says, labels=labels)
    for values, spread in ({(): spreads} if isinstance(spreads, Spread) else spreads).items():
        bounds = [*map(str, spread.bounds), "+Inf"]
        family.add_metric(values, list(zip(bounds, accumulate([*spread.counts]), strict=True)), spread.sum)
    return family


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Any, float] | float) -> Metric:
    for labels, value in ({(): values} if isinstance(values, (int, float)) else values).items():
        family.add_metric(labels, value)
    return family


class _Once:
    """A registry of what has been collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def text(families: Iterable[Metric]) -> bytes:
    """As Prometheus reads it."""
    return exposition.generate_latest(_Once(families))
