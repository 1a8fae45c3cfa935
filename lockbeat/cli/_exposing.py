"""What a command that serves a beat shows of it to others: ports for probes and metrics, and systemd."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from lockbeat.program import Beat
from lockbeat.values.durations import read_span

LOOPBACK = "127.0.0.1"

HealthPort = Annotated[
    int | None,
    typer.Option("--health-port", metavar="PORT", min=1, max=65535, help="Answer GET /livez, /readyz and /startupz here."),
]
HealthLimit = Annotated[
    str | None,
    typer.Option(
        "--health-limit", metavar="S", help="Not live after so long without a turn, such as 30s; else the beat's stall."
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option("--metrics-port", metavar="PORT", min=1, max=65535, help="Answer GET /metrics and /metrics/store here."),
]
MetricsDynamic = Annotated[
    bool, typer.Option("--metrics-dynamic", help="Count jobs made at run time by name, too, if there are 200 at most.")
]
Bind = Annotated[str, typer.Option("--bind", metavar="HOST", help="Where ports listen: 0.0.0.0 is open to the network.")]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen; None: nowhere."""

    health: int | None
    metrics: int | None
    bind: str
    limit: str | None
    """Of a standstill, as it was typed."""
    dynamic: bool


@contextlib.contextmanager
def exposed(beat: Beat, ports: Ports) -> Iterator[None]:
    """Answer probes and scrapes, and tell systemd, as far as that is asked for.

    Raises InvalidArgument; LockbeatError for a port that can't be had; MissingExtra.
    """
    if ports.limit is not None:
        beat.health.limit = read_span("health-limit", ports.limit)
    if ports.health is None and ports.metrics is None and "NOTIFY_SOCKET" not in os.environ:
        yield
        return
    from lockbeat.health.http import Listener, Page, probes, sparing
    from lockbeat.health.watch import Watch

    pages: dict[int, dict[str, Callable[[], Page]]] = {}
    if ports.health is not None:
        pages.setdefault(ports.health, {}).update(probes(beat.health))
    if ports.metrics is not None:
        from lockbeat.metrics.families import TEXT
        from lockbeat.metrics.metrics import Metrics

        metrics = Metrics(beat, dynamic=ports.dynamic)
        ours = {
            "/metrics": lambda: Page(metrics.text(), TEXT),
            "/metrics/store": lambda: Page(metrics.store_text_from_thread(), TEXT),
        }
        pages.setdefault(ports.metrics, {}).update(sparing(ours))
    with contextlib.ExitStack() as stack:
        stack.enter_context(Watch(beat.health))
        for port, answered in pages.items():
            stack.enter_context(Listener(answered, port, ports.bind))
        yield
