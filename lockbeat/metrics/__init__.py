"""Metrics for Prometheus: of this process, and of the store. Needs the extra `prometheus`.

`metrics = Metrics(beat)` before the beat serves; then `metrics.app` answers /metrics and /metrics/store where it is mounted, and
`registry.register(metrics.process)` adds them to a registry of yours. `lockbeat run --metrics-port` does the same at a port.
"""

from lockbeat.metrics.metrics import Metrics

__all__ = ["Metrics"]
