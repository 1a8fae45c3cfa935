"""exec: run a command under a lock, or once for a slot. What crontabs and CronJobs call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import Annotated

import typer

from lockbeat.cli._command import SERVE, app
from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import complain
from lockbeat.cli._store import refused, unreachable
from lockbeat.connection import Address, parse_url
from lockbeat.errors import InvalidArgument, InvalidTrigger, LockbeatError, ScriptError, StoreError, StoreUnavailable
from lockbeat.exec import Guardian, Outcome, Request, run
from lockbeat.exec.guardian import UNWRITTEN
from lockbeat.exec.output import Output
from lockbeat.settings import found
from lockbeat.triggers import Called, Cron, Every, Trigger
from lockbeat.values.durations import read_span, seconds
from lockbeat.values.names import check_name
from lockbeat.values.visible import visible

AWAY, LOST, BUSY = 69, 70, 75
"""Exit codes, as sysexits.h has them: EX_UNAVAILABLE, EX_SOFTWARE, EX_TEMPFAIL."""
TTL, GRACE, EARLY = 60.0, 10.0, 60.0
"""Seconds, where no option says them."""


def _span(text: str) -> float:
    try:
        return read_span("", text)
    except InvalidArgument as problem:
        raise typer.BadParameter(problem.problem) from None


def _slots(text: str, timezone: str) -> Trigger:
    """A period or a cron line."""
    try:
        period = read_span("slot", text)
    except InvalidArgument:
        return Cron(text, timezone)
    return Every(period)


@app.command("exec", rich_help_panel=SERVE)
def execute(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the lock, or, with slots, of the job.")],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD [ARGS]...", help="What to run.")],
    slot: Annotated[
        str | None,
        typer.Option(metavar="CRON|EVERY", help="Once for each of these slots, whoever calls: '*/5 * * * *', @daily, 5m."),
    ] = None,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Of the cron line.")] = "UTC",
    at_most_once_per: Annotated[
        float | None, typer.Option(metavar="SPAN", help="Not if it was last started less than that ago.", parser=_span)
    ] = None,
    ttl: Annotated[
        float, typer.Option(metavar="SPAN", help="How long others wait for a host that died: 60s, 5m.", parser=_span)
    ] = f"{TTL:g}",  # type: ignore[assignment]
    wait: Annotated[float, typer.Option(metavar="SPAN", help="For another to end; 0: not at all.", parser=_span)] = "0",  # type: ignore[assignment]
    grace: Annotated[
        float | None,
        typer.Option(metavar="SPAN", help="From SIGTERM to SIGKILL, when the lock is lost; else 10s, or ttl/4.", parser=_span),
    ] = None,
    early: Annotated[
        float, typer.Option(metavar="SPAN", help="A call that comes so long before a slot waits for it.", parser=_span)
    ] = f"{EARLY:g}",  # type: ignore[assignment]
    busy_code: Annotated[int, typer.Option(metavar="CODE", min=0, max=255, help="Exit code when another holds it.")] = BUSY,
    keep_output: Annotated[
        bool, typer.Option("--keep-output/--no-output", help="Keep the end of what CMD writes in the ledger.")
    ] = True,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The store; else $LOCKBEAT_URL (for passwords: `ps` shows options).")
    ] = None,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="The part of the store.")] = "lockbeat",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say why CMD was not run.")] = False,
) -> int:
    """Run a command while a lock is held, or once for a slot.

    Exit code: CMD's own, 128+n if a signal ended it. 0: the slot is another call's. 75 (--busy-code): another holds the lock.
    69: the store can't be reached, and CMD was not run. 70: the lock was lost, and CMD was ended. 74: CMD ended with 0, but what
    it wrote is lost, as on a full disk. 2: wrong usage.
    """
    request, grace_s = _request(name, slot, timezone, at_most_once_per, ttl, wait, grace, early)
    if not command:
        raise Usage("what is to be run? lockbeat exec NAME -- CMD ARGS")
    address = parse_url(url)
    if address.kind == "memory":
        raise Usage("memory:// lives inside one process; name another store by --url or $LOCKBEAT_URL")
    lines = _Lines(announces=found("url", url).source == "default")
    output = Output() if request.trigger is not None and keep_output else None
    guardian = (
        Guardian.fork(command, grace_s)
        if output is None
        else Guardian.fork(command, grace_s, output.stdout, output.stderr, output.ours_alone)
    )
    try:
        outcome = asyncio.run(run(url, namespace, request, guardian, output, lines.begin))
    except StoreError as problem:
        raise Problem(f"{_told(address, problem)}; {name!r} was not run", code=AWAY) from problem
    finally:
        guardian.close()
    code = _exit_code(outcome, busy_code, verbose)
    if output is not None:
        output.join()
        if output.trouble:
            # A reader may have been so slow that the ledger has the command's own code.
            code = code or UNWRITTEN
            said = f"lockbeat: {visible(f'what the command of {name!r} wrote is lost: {output.trouble}')}\n"
            with contextlib.suppress(OSError):  # stderr may be no better; what Python kept of it would be its exit code
                os.write(2, said.encode(errors="replace"))
    return code


def _request(
    name: str,
    slot: str | None,
    timezone: str,
    least: float | None,
    ttl: float,
    wait: float,
    grace: float | None,
    early: float,
) -> tuple[Request, float]:
    """The call, and its grace. Raises InvalidArgument, Usage."""
    check_name("name", name)
    seconds("ttl", ttl, least=1)
    seconds("wait", wait, least=0)
    seconds("early", early, least=0)
    grace = min(GRACE, ttl / 4) if grace is None else seconds("grace", grace, least=0)
    if grace > ttl / 2:
        raise Usage(f"--grace {grace:g} is more than half of --ttl {ttl:g}: CMD is to have ended before the lock does")
    if slot is not None and least is not None:
        raise Usage("--slot and --at-most-once-per: give one of them")
    trigger = None
    if slot is not None:
        try:
            trigger = Called(_slots(slot, timezone))
        except InvalidTrigger as problem:
            raise Usage(f"--slot {slot!r}: {problem.problem}") from None
    elif least is not None:
        trigger = Called(None, round(seconds("at-most-once-per", least) * 1000))
    return Request(name, ttl, wait, early, trigger), grace


def _exit_code(outcome: Outcome, busy_code: int, verbose: bool) -> int:
    """What is said of it, and with which exit code. What another call does is said to people alone: cron mails what is said."""
    if outcome.kind in ("ended", "signalled"):
        return outcome.code
    if outcome.kind in ("lost", "unsure") or verbose or sys.stderr.isatty():
        complain(outcome.said)
    return LOST if outcome.kind == "lost" else busy_code if outcome.kind == "busy" else 0


def _told(address: Address, problem: StoreError) -> LockbeatError:
    """What is wrong with the store, in one line."""
    if isinstance(problem, StoreUnavailable):
        return unreachable(address, problem)
    return problem if isinstance(problem, ScriptError) else refused(address, problem)


class _Lines(logging.Handler):
    """Warnings, as the other complaints of this program. Before the command has begun, its end says what is wrong with the store.

    announces: an embedded store that nobody has named says so; one that was named need not, at each call.
    """

    def __init__(self, announces: bool) -> None:
        super().__init__(logging.WARNING)
        self._announces, self._begun = announces, False
        log = logging.getLogger("lockbeat")
        log.addHandler(self)
        log.propagate = False

    def begin(self) -> None:
        self._begun = True

    def emit(self, record: logging.LogRecord) -> None:
        if self._begun or (self._announces and "guards this machine only" in record.msg):
            complain(record.getMessage())
