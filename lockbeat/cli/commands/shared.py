"""What commands share: the app that they belong to, and the options that several take."""

from __future__ import annotations

from typing import Annotated

import typer

from lockbeat.cli._output import show_utc

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store; else $LOCKBEAT_URL (for passwords: `ps` shows options), else embedded://.",
        show_default=False,
    ),
]
Namespace = Annotated[str, typer.Option("--namespace", metavar="NAME", help="The part of the store to look at.")]
Utc = Annotated[bool, typer.Option("--utc", help="Times in UTC, instead of this machine's zone.", callback=show_utc)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.", show_default=False)]
Target = Annotated[
    str,
    typer.Argument(metavar="MODULE:BEAT", help="The Beat: app.jobs:beat, path/jobs.py:beat, app:make().", show_default=False),
]
BeatUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The store, instead of the beat's own and $LOCKBEAT_URL. `ps` shows it: no passwords.",
        show_default=False,
    ),
]
BeatNamespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="Instead of the beat's own.", show_default=False)
]
Factory = Annotated[bool, typer.Option("--factory", help="BEAT is a function that makes it, as MODULE:FACTORY() says, too.")]
OnlyQueues = Annotated[
    list[str] | None,
    typer.Option("--queue", metavar="QUEUE", help="Run tasks of this queue only; may be repeated.", show_default=False),
]
Concurrency = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=10_000, help="How many tasks run at once; else the beat's own.", show_default=False),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more, on stderr.")]

OnlyQueue = Annotated[str | None, typer.Option("--queue", metavar="QUEUE", help="Only of this queue.", show_default=False)]
Queue = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="The queue.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Its id, as `tasks` shows it.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many at most.")]
Attempts = Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many more.")]

SERVE, LOOK, TASKS, STORE = "Serve", "Look and change", "Tasks and claims", "Store"

app = typer.Typer(
    help="Periodic jobs, fired once by however many instances.\n\n"
    "Exit code 2: wrong usage. 1: the store can't be reached, has no such thing, or it is in the wrong state.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
