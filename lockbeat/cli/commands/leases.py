"""Commands about what is held, and by whom."""

from __future__ import annotations

from typing import Annotated

import typer

from lockbeat.cli._store import Where
from lockbeat.cli.commands.shared import LOOK, AsJson, Namespace, Url, Utc, app


@app.command(rich_help_panel=LOOK)
def locks(
    owner: Annotated[str | None, typer.Option(metavar="OWNER", help="Only of this owner.", show_default=False)] = None,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """List the locks that are held: owner, fence, expiry."""
    from lockbeat.cli._leases import list_locks

    list_locks(Where(url, namespace), owner, as_json)


@app.command(rich_help_panel=LOOK)
def unlock(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the lock, as `locks` shows it.", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """Give back one lock, whoever holds it.

    Says who does and asks first, unless --yes. For one that is gone; a holder that lives learns of it when it next renews.
    """
    from lockbeat.cli._leases import unlock as give_back

    give_back(Where(url, namespace), name, yes, as_json)


@app.command("release-all", rich_help_panel=LOOK)
def release_all(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="As `locks` or `instances` shows it.", show_default=False)],
    url: Url = None,
    namespace: Namespace = "lockbeat",
    as_json: AsJson = False,
) -> None:
    """Take back all locks, tasks and claims of an owner.

    For one that is gone; what an instance that lives is running is cut short.
    """
    from lockbeat.cli._leases import release_all as release

    release(Where(url, namespace), owner, as_json)


@app.command(rich_help_panel=LOOK)
def instances(url: Url = None, namespace: Namespace = "lockbeat", as_json: AsJson = False) -> None:
    """List the instances that live."""
    from lockbeat.cli._leases import list_instances

    list_instances(Where(url, namespace), as_json)


@app.command(rich_help_panel=LOOK)
def top(
    refresh: Annotated[float, typer.Option(metavar="S", min=0.1, max=3600, help="Seconds between two looks.")] = 2,
    once: Annotated[bool, typer.Option("--once", help="Look once, as where there is no terminal.")] = False,
    url: Url = None,
    namespace: Namespace = "lockbeat",
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Watch queues, instances, leases and rates; Ctrl-C ends it."""
    from lockbeat.cli._top import watch

    watch(Where(url, namespace), refresh, once, as_json)
