"""top: what a store is at, looked at once, or again and again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lockbeat.cli._leases import heard
from lockbeat.cli._output import Cell, clock, is_terminal, iso, say, say_json, several, show, table
from lockbeat.cli._store import Where
from lockbeat.cli._tasks import QUEUE_COLUMNS, queue_json, queue_rows
from lockbeat.client import Lockbeat
from lockbeat.errors import StoreError
from lockbeat.monitor import Overview, QueueLoad, overview
from lockbeat.values.visible import visible

INSTANCE_COLUMNS = ("OWNER", "QUEUES", "SCHEDULES", "RUNNING", "LOCKS", "STATE")
AROUND = 14
"""Lines of a frame that are neither a queue nor an instance."""


def watch(where: Where, refresh: float, once: bool, as_json: bool) -> None:
    """Look every `refresh` seconds until SIGINT or SIGTERM; once where nobody watches."""
    if is_terminal() and not once and not as_json:
        where.ask(lambda lb: _watch(lb, refresh))
        return

    async def question(lb: Lockbeat) -> tuple[Overview, str]:
        return await overview(lb.store), lb.store.connector.location

    seen, location = where.ask(question)
    if as_json:
        say_json({"store": location, "namespace": where.namespace, **_json(seen)})
        return
    say(_title(seen, location))
    for columns, rows in _tables(seen, None):
        say()
        show(columns, rows, wraps=("QUEUES",))


async def _watch(lb: Lockbeat, refresh: float) -> None:
    location, console = lb.store.connector.location, Console()
    before, rates = await overview(lb.store), None  # what is wrong from the start ends it, as it does every command
    frame = _frame(before, rates, location, console)
    with _ended() as ended, Live(frame, console=console, screen=True, auto_refresh=False) as live:
        live.refresh()
        while not await _within(ended, refresh):
            looking = asyncio.ensure_future(overview(lb.store))
            either: set[asyncio.Future[Any]] = {looking, ended}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    break
                seen = looking.result()
                rates, before = seen.rates_since(before), seen
                frame = _frame(seen, rates, location, console)
            except StoreError as problem:
                # It may come back, and then the numbers go on; nobody wants to begin anew while a store is restarted.
                frame = _frame(before, None, location, console, str(problem))
            finally:
                looking.cancel()
            live.update(frame, refresh=True)
    console.print(frame)  # what was seen last stays


@contextlib.contextmanager
def _ended() -> Iterator[asyncio.Future[None]]:
    """Done once a signal asks for the end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    numbers = (signal.SIGINT, signal.SIGTERM)
    with contextlib.suppress(NotImplementedError):  # Windows, where KeyboardInterrupt ends it
        for number in numbers:
            loop.add_signal_handler(number, end)
    try:
        yield ended
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


async def _within(ended: asyncio.Future[None], seconds: float) -> bool:
    done, _ = await asyncio.wait({ended}, timeout=seconds)
    return bool(done)


def _json(seen: Overview) -> dict[str, Any]:
    return {
        "at": iso(round(seen.at * 1000)),
        "queues": [queue_json(load) for load in seen.queues],
        "running": seen.running,
        "locks": seen.locks,
        "locks_complete": seen.locks_complete,
        "claims": seen.claims,
        "tasks": asdict(seen.stats),
        "instances": [
            {
                "owner": instance.owner,
                "host": instance.host,
                "pid": instance.pid,
                "schedules": instance.schedules,
                "queues": list(instance.queues),
                "concurrency": instance.concurrency,
                "running": _running(instance.owner, seen),
                "locks": seen.locks_by.get(instance.owner, 0),
                "seen_at": iso(instance.seen_ms),
                "stuck_s": instance.stuck,
                "gave_up": instance.gave_up,
            }
            for instance in seen.instances
        ],
    }


def _running(owner: str, seen: Overview) -> int | None:
    return None if seen.running_by is None else seen.running_by.get(owner, 0)


def _title(seen: Overview, location: str) -> str:
    locks = f"{several(seen.locks, 'lock')}" if seen.locks_complete else f"more than {seen.locks} locks"
    instances = several(len(seen.instances), "instance")
    held = f"{instances}; held: {several(seen.running, 'task')}, {locks}, {several(seen.claims, 'claim')}"
    return f"{clock(round(seen.at) * 1000)}  {location}  {held}"


def _tables(
    seen: Overview, rates: dict[str, float] | None, most: int | None = None
) -> Iterator[tuple[tuple[str, ...], list[list[Cell]]]]:
    """What happened, the queues, the instances: each as columns and rows."""
    stats = asdict(seen.stats)
    rows: list[list[Cell]] = []
    if rates is not None:
        rows.append([("a second", "bold"), *(_rate(name, rates[name]) for name in stats)])
    rows.append([("in all", "dim"), *(str(count) for count in stats.values())])
    yield ("TASKS", *(name.upper() for name in stats)), rows
    yield QUEUE_COLUMNS, queue_rows(seen.queues)
    rows = [
        [
            (instance.owner, "bold"),
            " ".join(instance.queues) or "-",
            "yes" if instance.schedules else "no",
            _share(_running(instance.owner, seen), instance.concurrency if instance.queues else None),
            str(seen.locks_by.get(instance.owner, 0)),
            heard(instance, seen.at),
        ]
        for instance in seen.instances
    ]
    if rows:
        yield INSTANCE_COLUMNS, rows


def _rate(name: str, rate: float) -> Cell:
    text = f"{rate:.0f}" if rate >= 100 or rate == 0 else f"{rate:.1f}"
    return (text, "red bold") if name in ("failed", "lost") and rate else text


def _share(running: int | None, concurrency: int | None) -> str:
    known = "?" if running is None else str(running)
    return known if concurrency is None else f"{known}/{concurrency}"


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
    for columns, rows in _tables(shown, rates):
        parts.append(table(columns, rows, console.width, spare=("SCHEDULES", "LOCKS"), wraps=("QUEUES",)))
    left = [(len(seen.queues) - len(shown.queues), "queue"), (len(seen.instances) - len(shown.instances), "instance")]
    parts += [Text(f"and {several(count, noun)} more", "dim") for count, noun in left if count]
    return Group(*parts)


def _busiest(queues: tuple[QueueLoad, ...], most: int) -> tuple[QueueLoad, ...]:
    """As many as fit, still in order of name: rows that jump can't be read."""
    ranked = sorted(queues, key=lambda load: -(load.ready + load.delayed + (load.running or 0) + load.dead))
    return tuple(load for load in queues if load in ranked[:most])
