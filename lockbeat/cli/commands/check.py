"""check: whether the instance on this machine is well, for probes that run a command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from lockbeat.cli._command import SERVE, app
from lockbeat.cli._errors import Usage
from lockbeat.cli._exposing import LOOPBACK
from lockbeat.cli._output import Answer, complain
from lockbeat.health.asking import ask

PATHS = {"live": "/livez", "ready": "/readyz", "startup": "/startupz"}
WORDS = {"live": "live", "ready": "ready", "startup": "started"}


@app.command(rich_help_panel=SERVE)
def check(
    what: Annotated[
        Literal["live", "ready", "startup"], typer.Argument(metavar="[live|ready|startup]", help="What to ask it.")
    ] = "live",
    health_port: Annotated[
        int | None, typer.Option("--health-port", metavar="PORT", min=1, max=65535, help="The one that it was served with.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Where it listens.")] = LOOPBACK,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, max=60, help="How long to wait for it.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> int:
    """Ask an instance of this machine if it is well.

    Live, ready or started; exit code 1 if it is not, or does not answer.
    """
    if health_port is None:
        raise Usage("say --health-port, or $LOCKBEAT_HEALTH_PORT: the port of `lockbeat run --health-port`")
    said = ask(PATHS[what], health_port, host, timeout)
    found: dict[str, Any] = {"ok": False, "phase": None, "problems": [said]} if isinstance(said, str) else asdict(said)
    if found["ok"] or as_json:
        return Answer(found, f"{WORDS[what]}: it is {found['phase']}", code=0 if found["ok"] else 1).show(as_json)
    complain(f"not {WORDS[what]}: {'; '.join(found['problems'])}")
    return 1
