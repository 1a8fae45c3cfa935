"""top: what a store is at, looked at once, or again and again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
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
from lockbeat.monitor import Overview, QueueLoad, Wrong, overview, wrong
from lockbeat.values.visible import visible

AROUND = 17
"""Lines of a frame that are neither its title, nor a queue, nor an instance, nor say what is wrong."""
SHOWN = 12
"""Of each kind of what is wrong, where it is looked at once."""


@command(LOOK)
def top(
    where: Where,
    as_json: bool,
    refresh: Annotated[float, typer.Option(metavar="S", min=0.1, max=3600, help="Seconds between two looks.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Look once, as where there is no terminal.")] = False,
) -> Answer:
    """Watch what is wrong, queues and instances; Ctrl-C ends it."""
    if is_terminal() and not once and not as_json:
        return where.ask(lambda lb: _watch(lb, refresh))

    async def look(lb: Lockbeat) -> tuple[Overview, Wrong, str]:
        return *await _look(lb), lb.store.connector.location

    seen, bad, location = where.ask(look)
    told: list[str | Table] = [_title(seen, location)]
    for shown in (*_wrong(bad, SHOWN), *_tables(seen, None)):
        told += ["", shown]
    return Answer({"store": location, "namespace": where.namespace, **_json(seen, bad)}, told, bad.left_out)


async def _look(lb: Lockbeat) -> tuple[Overview, Wrong]:
    seen = await overview(lb.store)
    ready, dead = ((load.queue, load.ready) for load in seen.queues), sum(load.dead for load in seen.queues)
    return seen, await wrong(lb.store, seen.instances, ready, dead, seen.at)


async def _watch(lb: Lockbeat, refresh: float) -> Answer:
    """Look every `refresh` seconds until a signal asks for the end."""
    location, console = lb.store.connector.location, Console()
    before, bad = await _look(lb)  # a store that is away from the start ends it, as it does every command
    frame = _frame(before, bad, None, location, console)
    live = Live(frame, console=console, screen=True, auto_refresh=False)
    with until_signalled() as ended, _suspended_with(live), live:
        live.refresh()
        while not (await asyncio.wait({ended}, timeout=refresh))[0]:
            looking = asyncio.ensure_future(_look(lb))
            either: set[asyncio.Future[Any]] = {looking, ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                looking.cancel()
                break
            try:
                seen, bad = looking.result()
                frame = _frame(seen, bad, seen.rates_since(before), location, console)
                before = seen
            except StoreError as problem:
                # It may come back, and then the numbers go on; nobody wants to begin anew while a store is restarted.
                frame = _frame(before, bad, None, location, console, str(problem))
            live.update(frame, refresh=True)
    console.print(frame)  # what was seen last stays
    return Answer(None, ())


@contextmanager
def _suspended_with(live: Live) -> Iterator[None]:
    """Ctrl-Z gives the shell its screen and its cursor back; `fg` draws anew."""
    loop, overflow = asyncio.get_running_loop(), live.vertical_overflow

    def suspend() -> None:
        live.stop()
        os.kill(os.getpid(), signal.SIGSTOP)  # goes on from here
        live.vertical_overflow = overflow
        live.start(refresh=True)

    loop.add_signal_handler(signal.SIGTSTP, suspend)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTSTP)


def _json(seen: Overview, bad: Wrong) -> dict[str, Any]:
    return {
        "at": iso(seen.at),
        "wrong": [
            {"what": line.kind, "says": line.text(iso), "remedy": line.remedy, "job": line.job, "task": line.task_id}
            for line in bad.lines()
        ],
        "wrong_complete": bad.complete,
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


def _wrong(bad: Wrong, most: int) -> Iterator[Table]:
    """What is wrong now, the worst first: of each kind at most so many."""
    rows: list[dict[str, Cell]] = []
    for kind, lines, more in bad.first(most):
        told = [(line.text(clock), line.remedy) for line in lines]
        told += [(f"and {more:,} more", "lockbeat top --json")] * bool(more)
        rows += [{"WRONG NOW": (kind, "red bold"), "WHAT": what, "REMEDY": (remedy, "cyan")} for what, remedy in told]
    if rows:
        yield Table(rows, spare=("REMEDY",), wraps=("WHAT",))


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
    seen: Overview,
    bad: Wrong,
    rates: dict[str, float] | None,
    location: str,
    console: Console,
    problem: str | None = None,
) -> RenderableType:
    """One picture of the store, as large as the window."""
    title = Text(visible(_title(seen, location)), "bold")
    lines = max(console.height - AROUND - len(title.wrap(console, console.width)), 2)
    wrong_now, more_wrong = _worst(bad, max(lines // 2, 3))
    lines = max(lines - len(wrong_now) - bool(more_wrong), 2)
    instances = min(len(seen.instances), max(lines // 3, 1))
    shown = replace(seen, queues=_busiest(seen.queues, lines - instances), instances=seen.instances[:instances])
    parts: list[RenderableType] = [title]
    if problem is not None:
        parts.append(Text(visible(f"can't look since then: {problem}"), "red bold"))
    parts += [Text(visible(line), "red", no_wrap=True, overflow="ellipsis") for line in wrong_now]
    if more_wrong:
        parts.append(Text(f"and {more_wrong:,} more: lockbeat top --once", "dim"))
    parts += [each.drawn(console.width) for each in _tables(shown, rates)]
    left = [(len(seen.queues) - len(shown.queues), "queue"), (len(seen.instances) - len(shown.instances), "instance")]
    parts += [Text(f"and {several(count, noun)} more", "dim") for count, noun in left if count]
    return Group(*parts)


def _worst(bad: Wrong, most: int) -> tuple[list[str], int]:
    """The first of each kind, then more of those, each in a line; and how many there are beyond them."""
    groups = [lines for _, lines, _ in bad.first(most)]
    lines = [line for row in zip_longest(*groups) for line in row if line is not None]
    shown = {id(line) for line in lines[:most]}
    return [line.text(clock) for lines in groups for line in lines if id(line) in shown], sum(1 for _ in bad.lines()) - len(shown)


def _busiest(queues: tuple[QueueLoad, ...], most: int) -> tuple[QueueLoad, ...]:
    """As many as fit, still in order of name: rows that jump can't be read."""
    ranked = sorted(queues, key=lambda load: -(load.ready + load.delayed + (load.running or 0) + load.dead))
    return tuple(load for load in queues if load in ranked[:most])
