"""Commands about the store itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockbeat.cli._store import Where
from lockbeat.cli.commands.shared import STORE, AsJson, Namespace, Url, app


@app.command(rich_help_panel=STORE)
def server(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="Its directory; else one a user.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Also listen on 127.0.0.1.", show_default=False)
    ] = None,
) -> None:
    """Keep the embedded store up until SIGTERM."""
    from lockbeat.cli._serve import serve_store

    serve_store(None if path is None else str(path), port)


@app.command(rich_help_panel=STORE)
def doctor(url: Url = None, namespace: Namespace = "lockbeat", as_json: AsJson = False) -> None:
    """Check whether the store is fit; exit code 1 if not.

    That is, if a check fails: with warnings it is fit, and the exit code 0.
    """
    from lockbeat.cli._doctor import check_up

    raise typer.Exit(check_up(Where(url, namespace), as_json))
