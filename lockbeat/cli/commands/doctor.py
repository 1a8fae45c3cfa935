"""doctor: whether the store is fit for its work."""

from __future__ import annotations

from lockbeat.cli import _store
from lockbeat.cli._command import STORE, command
from lockbeat.cli._output import Answer, Cell, Table, fields, several, styled
from lockbeat.cli._store import Where
from lockbeat.connection import Connector
from lockbeat.monitor import Finding, examine

WORST = ("fail", "warn", "unknown", "ok")


@command(STORE)
def doctor(where: Where) -> Answer:
    """Check whether the store is fit; exit code 1 if not.

    That is, if a check fails: with warnings it is fit, and the exit code 0.
    """

    async def examining() -> tuple[str, list[Finding]]:
        async with await Connector.open(where.url) as connector:
            return connector.location, await examine(connector, where.namespace, _store.TIMEOUT)

    location, findings = where.run(examining)
    states = [finding.state for finding in findings]
    worst = min(states, key=WORST.index)
    rows: list[dict[str, Cell]] = []
    for finding in findings:
        rows.append({"STATE": styled(finding.state), "CHECK": (finding.check, "bold"), "FINDING": finding.says})
        if finding.remedy:
            rows.append({"STATE": "", "CHECK": "", "FINDING": (f"remedy: {finding.remedy}", "cyan")})
    warnings = f", with {several(states.count('warn'), 'warning')}" if "warn" in states else ""
    return Answer(
        {
            "store": location,
            "namespace": where.namespace,
            "state": worst,
            "checks": [fields(finding) for finding in findings],
        },
        [
            f"store {location}, namespace {where.namespace}",
            Table(rows, wraps=("FINDING",)),
            "not fit" if worst == "fail" else f"fit{warnings}",
        ],
        code=1 if worst == "fail" else 0,
    )
