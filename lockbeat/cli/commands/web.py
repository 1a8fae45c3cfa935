"""web: a page over the store, for people with a browser."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from lockbeat.cli._command import LOOK, app
from lockbeat.cli._errors import Usage, until_signalled
from lockbeat.cli._output import say
from lockbeat.cli._store import TIMEOUT, Where, quiet
from lockbeat.cli.commands.serve import log_to_stderr
from lockbeat.client import Lockbeat
from lockbeat.settings import variable

PORT = 7330
PASSWORD = variable("web", "password")


@app.command(rich_help_panel=LOOK)
def web(
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The store; else $LOCKBEAT_URL. `ps` shows options: no passwords.")
    ] = None,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="The part of the store to look at.")] = "lockbeat",
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Where to listen; other than the loopback takes a user.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: any that is free.")] = PORT,
    user: Annotated[str | None, typer.Option(metavar="NAME", help=f"Ask for this user, and the password in ${PASSWORD}.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nobody may change anything.")] = False,
    prefix: Annotated[str, typer.Option(metavar="PATH", help="The path that a proxy serves it under, such as /lockbeat.")] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that it may be called by; may be repeated.")
    ] = None,
    show_params: Annotated[bool, typer.Option("--show-params", help="Show params and results, less secrets.")] = False,
    title: Annotated[str, typer.Option(metavar="WORD", help="A word beside the namespace, such as staging.")] = "",
) -> None:
    """Serve a web page over the store until SIGTERM.

    It listens on 127.0.0.1. Elsewhere it refuses to start unless a user and a password are asked for.
    """
    from lockbeat.web import Basic, dashboard
    from lockbeat.web.guard import named_host
    from lockbeat.web.serve import is_loopback, listening, serve

    password = os.environ.get(PASSWORD, "").rstrip("\r\n")  # which secrets made by `echo` end in
    if bool(user) != bool(password):
        raise Usage(f"to ask for a user, say both --user (or ${variable('web', 'user')}) and ${PASSWORD}")
    basic = Basic(user, password) if user else None
    alone = is_loopback(host)
    if not alone and basic is None:
        raise Usage(f"{host} can be reached by others: say --user and ${PASSWORD} first, or leave --host out")
    allowed = [named_host("--allow-host", name) for name in allow_host or ()]
    hosts = (*(("localhost", "127.0.0.1", "::1", host) if alone else ()), *allowed)
    where = Where(url, namespace)
    where.address()

    async def serving() -> None:
        async with contextlib.AsyncExitStack() as stack:
            with quiet():
                lb = await stack.enter_async_context(Lockbeat(url, namespace=namespace, timeout=TIMEOUT))
            board = dashboard(
                lb,
                basic=basic,
                user=None if basic else (lambda scope: _me()),
                read_only=read_only,
                hosts=hosts,
                prefix=prefix,
                show_params=show_params,
                title=title,
            )
            with until_signalled() as ended, listening(host, port) as bound:
                log_to_stderr(0)
                await serve(board, bound, ended, lambda at: _announce(at, lb.store.connector.location))

    where.run(serving, log=True)


def _me() -> str:
    """Who asks, where only the users of this machine can."""
    from lockbeat.jobs.control import who

    return who(None)


def _announce(at: str, location: str) -> None:
    say(f"serving {at} over {location}; Ctrl-C ends it")
    sys.stdout.flush()
