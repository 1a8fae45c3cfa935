"""doctor: whether the store is fit for its work."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lockbeat.cli._output import is_terminal, say, say_json
from lockbeat.cli._store import TIMEOUT, Where, quiet, refused, unreachable
from lockbeat.connection import Connector
from lockbeat.errors import StoreError, StoreUnavailable
from lockbeat.monitor import Finding, State, examine
from lockbeat.values.visible import visible

SIGNS: dict[State, tuple[str, str]] = {
    "ok": ("✔ ok", "green"),
    "warn": ("! warn", "yellow"),
    "fail": ("✘ fail", "bold red"),
    "unknown": ("? unknown", "dim"),
}
WORST: tuple[State, ...] = ("fail", "warn", "unknown", "ok")


def check_up(where: Where, as_json: bool) -> int:
    """Show every finding; the exit code: 1 if one is a failure."""
    address = where.address()

    async def examining() -> tuple[str, list[Finding]]:
        async with await Connector.open(where.url) as connector:
            return connector.location, await examine(connector, where.namespace, TIMEOUT)

    try:
        with quiet():
            location, findings = asyncio.run(examining())
    except StoreUnavailable as problem:
        raise unreachable(address, problem) from problem
    except StoreError as problem:
        raise refused(address, problem) from problem
    states = {finding.state for finding in findings}
    worst = next(state for state in WORST if state in states)
    if as_json:
        checks = [asdict(finding) for finding in findings]
        say_json({"store": location, "namespace": where.namespace, "state": worst, "checks": checks})
    elif is_terminal():
        _show(location, findings)
    else:
        say(f"store {location}, namespace {where.namespace}")
        for finding in findings:
            remedy = f"; remedy: {finding.remedy}" if finding.remedy else ""
            say(f"{finding.state:<8} {finding.check:<12} {finding.says}{remedy}")
    if not as_json:
        warnings = sum(finding.state == "warn" for finding in findings)
        several = f"fit, with {warnings} warning{'s' * (warnings != 1)}" if warnings else "fit"
        say("not fit" if worst == "fail" else several)
    return 1 if worst == "fail" else 0


def _show(location: str, findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        says = Text(visible(finding.says))
        if finding.remedy:
            says.append(f"\n→ {visible(finding.remedy)}", "cyan")
        table.add_row(Text(*SIGNS[finding.state]), Text(finding.check, "bold"), says)
    console = Console(highlight=False)
    console.print(Text(visible(location), "dim"))
    console.print(table)
