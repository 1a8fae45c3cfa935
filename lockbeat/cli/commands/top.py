"""top: what a store is at, looked at once, or again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lockbeat.cli._command import LOOK, command
from lockbeat.cli._errors import until_signalled
from lockbeat.cli._output import Answer, Cell, Table, clock, fields, is_terminal, iso, several
from lockbeat.cli._store import Where
from lockbeat.cli.commands.leases import INSTANCE, heard
from lockbeat.cli.commands.tasks import queue_rows
from lockbeat.client import Lockbeat
from lockbeat.errors import StoreError
from lockbeat.monitor import Overview, QueueLoad, overview
from lockbeat.values.visible import visible

AROUND = 14
"""Lines of a frame that are neither a queue nor an instance."""


@command(LOOK)
def top(
    where: Where,
    as_json: bool,
    refresh: Annotated[float, typer.Option(metavar="S", min=0.1, max=3600, help="Seconds between two looks.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Look once, as where there is no terminal.")] = False,
) -> Answer:
    """Watch queues, instances, leases and rates; Ctrl-C ends it."""
    if is_terminal() and not once and not as_json:
        return where.ask(lambda lb: _watch(lb, refresh))

    async def look(lb: Lockbeat) -> tuple[Overview, str]:
        return await overview(lb.store), lb.store.connector.location

    seen, location = where.ask(look)
    told: list[str | Table] = [_title(seen, location)]
    for shown in _tables(seen, None):
        told += ["", shown]
    return Answer({"store": location, "namespace": where.namespace, **_json(seen)}, told)


async def _watch(lb: Lockbeat, refresh: float) -> Answer:
    """Look every `refresh` seconds until a signal asks for the end."""
    location, console = lb.store.connector.location, Console()
    before = await overview(lb.store)  # what is wrong from the start ends it, as it does every command
    frame = _frame(before, None, location, console)
    with until_signalled() as ended, Live(frame, console=console, screen=True, auto_refresh=False) as live:
        live.refresh()
        while not (await asyncio.wait({ended}, timeout=refresh))[0]:
            looking = asyncio.ensure_future(overview(lb.store))
            either: set[asyncio.Future[Any]] = {looking, ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                looking.cancel()
                break
            try:
                seen = looking.result()
                frame = _frame(seen, seen.rates_since(before), location, console)
                before = seen
            except StoreError as problem:
                # It may come back, and then the numbers go on; nobody wants to begin anew while a store is restarted.
                frame = _frame(before, None, location, console, str(problem))
            live.update(frame, refresh=True)
    console.print(frame)  # what was seen last stays
    return Answer(None, ())


def _json(seen: Overview) -> dict[str, Any]:
    return {
        "at": iso(seen.at),
        "queues": [fields(load) for load in seen.queues],
        **fields(seen, "running locks locks_complete claims"),
        "tasks": fields(seen.stats),
        "instances": [
            fields(instance, INSTANCE)
            | {"running": seen.running_of(instance.owner), "locks": seen.locks_by.get(instance.owner, 0)}
            for instance in seen.instances
        ],
    }


def _title(seen: Overview, location: str) -> str:
    locks = several(seen.locks, "lock") if seen.locks_complete else f"more than {seen.locks} locks"
    instances = several(len(seen.instances), "instance")
    held = f"{instances}; held: {several(seen.running, 'task')}, {locks}, {several(seen.claims, 'claim')}"
    return f"{clock(round(seen.at))}  {location}  {held}"


def _tables(seen: Overview, rates: dict[str, float] | None) -> Iterator[Table]:
    """What happened, the queues, the instances."""
    stats = fields(seen.stats)
    counts: list[dict[str, Cell]] = [{"TASKS": ("in all", "dim"), **{name.upper(): str(count) for name, count in stats.items()}}]
    if rates is not None:
        counts.insert(0, {"TASKS": ("a second", "bold"), **{name.upper(): _rate(name, rate) for name, rate in rates.items()}})
    yield Table(counts)
    if seen.queues:
        yield Table(queue_rows(seen.queues))
    rows: list[dict[str, Cell]] = []
    for instance in seen.instances:
        running = seen.running_of(instance.owner)
        rows.append(
            {
                "OWNER": (instance.owner, "bold"),
                "QUEUES": " ".join(instance.queues) or "-",
                "SCHEDULES": "yes" if instance.schedules else "no",
                "RUNNING": f"{'?' if running is None else running}{f'/{instance.concurrency}' if instance.queues else ''}",
                "LOCKS": str(seen.locks_by.get(instance.owner, 0)),
                "STATE": heard(instance, seen.at),
            }
        )
    if rows:
        yield Table(rows, spare=("SCHEDULES", "LOCKS"), wraps=("QUEUES",))


def _rate(name: str, rate: float) -> Cell:
    text = f"{rate:.0f}" if rate >= 100 or rate == 0 else f"{rate:.1f}"
    return (text, "red bold") if name in ("failed", "lost") and rate else text


def _frame(
    seen: Overview, rates: dict[str, float] | None, location: str, console: Console, problem: str | None = None
) -> RenderableType:
    """One picture of the store, as large as the window."""
    lines = max(console.height - AROUND, 2)
    instances = min(len(seen.instances), max(lines // 3, 1))
    shown = replace(seen, queues=_busiest(seen.queues, lines - instances), instances=seen.instances[:instances])
    parts: list[RenderableType] = [Text(visible(_title(seen, location)), "bold")]
    if problem is not None:
        parts.append(Text(visible(f"can't look since then: {problem}"), "red bold"))
    parts += [each.drawn(console.width) for each in _tables(shown, rates)]
    left = [(len(seen.queues) - len(shown.queues), "queue"), (len(seen.instances) - len(shown.instances), "instance")]
    parts += [Text(f"and {several(count, noun)} more", "dim") for count, noun in left if count]
    return Group(*parts)


def _busiest(queues: tuple[QueueLoad, ...], most: int) -> tuple[QueueLoad, ...]:
    """As many as fit, still in order of name: rows that jump can't be read."""
    ranked = sorted(queues, key=lambda load: -(load.ready + load.delayed + (load.running or 0) + load.dead))
    return tuple(load for load in queues if load in ranked[:most])
