"""plan: what a deploy would do to the jobs of a store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lockbeat.cli._command import LOOK, app
from lockbeat.cli._load import asynchronous, load_beat
from lockbeat.cli._output import Answer, Table, clock, iso, several, show_utc
from lockbeat.cli._store import TIMEOUT, Where
from lockbeat.program.comparing import Comparison, Difference

CHANGES = 3
"""The exit code where there is something to do."""


@app.command(rich_help_panel=LOOK)
def plan(
    target: Annotated[str, typer.Argument(metavar="MODULE:BEAT", help="The Beat, as for `run`.")],
    factory: Annotated[bool, typer.Option("--factory", help="BEAT is a function that makes it.")] = False,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The store, instead of the beat's own and $LOCKBEAT_URL. `ps` shows it.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Instead of the beat's own.")] = None,
    utc: Annotated[
        bool, typer.Option("--utc", help="Times in UTC, instead of this machine's zone.", callback=show_utc, is_eager=True)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> int:
    """Say what a deploy would do to the jobs of a store.

    It changes nothing. Exit code 0: nothing to do; 3: something would change.
    """
    beat = asynchronous(load_beat(target, factory=factory))
    if url is not None or namespace is not None:
        beat.move(url, namespace=namespace)
    found: Comparison = Where(beat.url, beat.namespace).run(lambda: beat.compare(timeout=TIMEOUT, clock=clock))
    return Answer(_document(found), _told(target, found), code=CHANGES if found.differences else 0).show(as_json)


def _document(found: Comparison) -> dict[str, Any]:
    return {
        "version": found.version,
        "newer_versions": list(found.newer),
        "differences": [
            {
                "job": each.job,
                "kind": each.kind,
                "schedule": each.schedule,
                "changed": {name: {"before": before, "after": after} for name, (before, after) in each.changed.items()},
                "before": [iso(slot) for slot in each.before],
                "after": [iso(slot) for slot in each.after],
                "retires_at": each.retires_at and iso(each.retires_at),
                "remarks": list(each.remarks),
            }
            for each in found.differences
        ],
        "unchanged": found.unchanged,
        "others": found.others,
        "lost": [{"job": job, "slot": iso(slot)} for job, slot in found.lost],
        "doubled": [{"job": new, "with": old} for new, old in found.doubled],
    }


def _told(target: str, found: Comparison) -> list[str | Table]:
    lines: list[str | Table] = [f"{target}, version {found.version or '-'}"]
    for each in found.differences:
        lines += _of_one(each)
    same = f"unchanged: {several(found.unchanged, 'job')}"
    others = f"; left alone, as others': {several(found.others, 'job')}" if found.others else ""
    lines.append(f"{same}{others}" if found.differences else f"nothing to do; {same}{others}")
    if found.newer:
        lives = f"newer: version {', '.join(found.newer)} lives, newer by its version= or since it was declared later"
        lines.append(f"{lives}; jobs that it declares stay as they are while it does")
    lost, doubled = found.lost, found.doubled
    lines.append(
        f"lost: {'; '.join(f'{job} at {clock(slot)}' for job, slot in lost)}; the ledger will say so"
        if lost
        else "lost: none; a job that changes keeps its next slot, or begins with the first one after now, and none is due now"
    )
    lines.append(
        f"doubled: {'; '.join(f'{new} and {old}' for new, old in doubled)}, while old and new instances live"
        if doubled
        else "doubled: none; job and time are a slot's identity, which is fired once, whoever declares it"
    )
    return lines


def _of_one(each: Difference) -> list[str]:
    lines = [f"{each.kind:<8} {each.job}  {each.schedule}"]
    lines += [f"         {name}: {_value(before)} -> {_value(after)}" for name, (before, after) in each.changed.items()]
    if each.before and each.kind == "changed":
        lines.append(f"         next slots before: {_slots(each.before)}")
    if each.after:
        lines.append(f"         next slots{' after' * (each.kind == 'changed')}: {_slots(each.after)}")
    if each.kind == "removed":
        when = f"at {clock(each.retires_at)}" if each.retires_at else "ten minutes after the last of them has gone"
        lines.append(f"         retires {when}; until then it has slots")
    return lines + [f"         {remark}" for remark in each.remarks]


def _slots(slots: tuple[Any, ...]) -> str:
    return ", ".join(clock(slot) for slot in slots)


def _value(value: Any) -> str:
    return "none" if value in (None, "", []) else str(value)
