"""Commands that serve a beat."""

from __future__ import annotations

from typing import Annotated

import typer

from lockbeat.cli.commands.shared import SERVE, BeatNamespace, BeatUrl, Concurrency, Factory, OnlyQueues, Target, Verbose, app


@app.command(rich_help_panel=SERVE)
def run(
    target: Target,
    factory: Factory = False,
    queue: OnlyQueues = None,
    concurrency: Concurrency = None,
    url: BeatUrl = None,
    namespace: BeatNamespace = None,
    verbose: Verbose = False,
) -> None:
    """Serve a beat until SIGTERM: fire slots and run tasks."""
    from lockbeat.cli._serve import serve

    serve(target, url, namespace, verbose, schedule=True, work=True, factory=factory, queues=queue, concurrency=concurrency)


@app.command(rich_help_panel=SERVE)
def beat(
    target: Target, factory: Factory = False, url: BeatUrl = None, namespace: BeatNamespace = None, verbose: Verbose = False
) -> None:
    """Serve a beat, schedules only: workers run its tasks."""
    from lockbeat.cli._serve import serve

    serve(target, url, namespace, verbose, schedule=True, work=False, factory=factory)


@app.command(rich_help_panel=SERVE)
def worker(
    target: Target,
    factory: Factory = False,
    queue: OnlyQueues = None,
    concurrency: Concurrency = None,
    url: BeatUrl = None,
    namespace: BeatNamespace = None,
    verbose: Verbose = False,
) -> None:
    """Serve a beat, runs only: others fire its slots."""
    from lockbeat.cli._serve import serve

    serve(
        target, url, namespace, verbose, schedule=False, work=True, factory=factory, queues=queue or (), concurrency=concurrency
    )


@app.command(rich_help_panel=SERVE)
def demo(
    seconds: Annotated[float, typer.Option(metavar="S", min=8, max=600, help="How long the instances run.")] = 20,
    instances: Annotated[int, typer.Option(metavar="N", min=2, max=9, help="How many there are.")] = 3,
) -> None:
    """Watch instances share jobs while one is killed, one frozen.

    Counts what the jobs did against what was due; exit code 1 if a slot was missed or fired twice.
    """
    from lockbeat.cli.demo import show_demo

    raise typer.Exit(show_demo(seconds, instances))
