"""config: each option's value, and where it came from."""

from __future__ import annotations

import difflib
import os
from typing import Annotated, Any

import typer

from lockbeat.cli import _settings
from lockbeat.cli._command import STORE, app
from lockbeat.cli._load import load_beat
from lockbeat.cli._output import Answer, Cell, Table
from lockbeat.connection import parse_url
from lockbeat.settings import SETTINGS, Found, configured, found, variable

GIVEN_TO_COMMANDS = {"LOCKBEAT_KEY", "LOCKBEAT_FENCE", "LOCKBEAT_SLOT", "LOCKBEAT_TASK"}
OTHERS = {"LOCKBEAT_CONFIG", "LOCKBEAT_SERVER_BINARY", "LOCKBEAT_WEB_PASSWORD"}


@app.command(rich_help_panel=STORE)
def config(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:BEAT]", help="With what this Beat says of itself.", show_default=False)
    ] = None,
    factory: Annotated[bool, typer.Option("--factory", help="BEAT is a function that makes it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> int:
    """Show each option's value, and where it came from.

    Argument (of the Beat), environment, file, default: the first that says it. Passwords in URLs are hidden.
    """
    known: dict[str, Found] = {}
    if target is not None:
        beat = load_beat(target, factory=factory)
        known = {**beat.settings, "url": found("url", beat.url)}
    lines = []
    for name in SETTINGS:
        one = known.get(name) or found(name)
        lines.append((name, _shown(name, one), one.source))
    command = typer.main.get_command(app)
    lines += [(name, _plain(value), source) for name, value, source in _settings.said(command)]
    rows: list[dict[str, Cell]] = [
        {"OPTION": (name, "bold"), "VALUE": _text(value), "FROM": source} for name, value, source in lines
    ]
    path, _ = configured()
    return Answer(
        {"file": path and str(path), "options": [{"option": name, "value": value, "from": of} for name, value, of in lines]},
        Table(rows, wraps=("FROM",)),
        _unknown(command),
    ).show(as_json)


def _shown(name: str, one: Found) -> Any:
    if name != "url":
        return _plain(one.value)
    return parse_url(str(one.value)).safe if one.source == "argument" else parse_url().safe


def _plain(value: Any) -> Any:
    """A value as JSON has it; a URL in it without its password."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, str) and "://" in value:
        return parse_url(value).safe
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else " ".join(map(_text, value)) if isinstance(value, list) else f"{value}"


def _unknown(command: Any) -> str:
    """Variables that nothing reads."""
    read = {variable(name) for name in SETTINGS} | OTHERS | GIVEN_TO_COMMANDS
    read |= {name for option in _settings.options(command) for name in option.variables}
    strange = sorted(name for name in os.environ if name.startswith("LOCKBEAT_") and name not in read)
    hints = []
    for name in strange:
        near = difflib.get_close_matches(name, read, 1)
        hints.append(f"{name}{f' (did you mean {near[0]}?)' if near else ''}")
    return f"nothing reads {', '.join(hints)}" if hints else ""
