"""How a command is declared, and the options that several take."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from lockbeat.cli._errors import Problem, Usage
from lockbeat.cli._output import Answer, show_utc
from lockbeat.cli._store import Where
from lockbeat.values.visible import visible

Command = TypeVar("Command", bound=Callable[..., Any])

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")]
Owner = Annotated[str, typer.Argument(metavar="OWNER", help="As `locks` or `instances` shows it.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Its id, as `tasks` shows it.")]
OnlyQueue = Annotated[str | None, typer.Option("--queue", metavar="QUEUE", help="Only of this queue.")]
Queue = Annotated[str, typer.Option("--queue", metavar="QUEUE", help="The queue.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="How many at most.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who does it; else your user name.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

SERVE, LOOK, TASKS, STORE = "Serve", "Look and change", "Tasks and claims", "Store"

app = typer.Typer(
    help="Periodic jobs, fired once by however many instances.\n\n"
    "Exit code 2: wrong usage. 1: the store can't be reached, has no such thing, or it is in the wrong state.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _of_a_store(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The store; else $LOCKBEAT_URL (for passwords: `ps` shows options), else embedded://."),
    ] = None,
    namespace: Annotated[str, typer.Option(metavar="NAME", help="The part of the store to look at.")] = "lockbeat",
    utc: Annotated[
        bool, typer.Option("--utc", help="Times in UTC, instead of this machine's zone.", callback=show_utc, is_eager=True)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """The options of each command that asks a store."""


def command(panel: str, name: str = "", of: typer.Typer = app) -> Callable[[Command], Command]:
    """Declare a command that asks a store: its options, and that its Answer is shown, come with it.

    A coroutine function is given the open store, with its own options. A plain one is given `Where` the store is, to ask it
    several times, or a person in between.
    """

    def declare(function: Command) -> Command:
        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        wants_json = own and own[0].name == "as_json"

        @wraps(function)
        def run(url: str | None, namespace: str, utc: object, as_json: bool, **options: Any) -> int:
            where = Where(url, namespace)
            answer: Answer
            if wants_json:
                options["as_json"] = as_json
            if inspect.iscoroutinefunction(function):
                answer = where.ask(lambda lb: function(lb, **options))
            else:
                answer = function(where, **options)
            return answer.show(as_json)

        shared = inspect.signature(_of_a_store, eval_str=True).parameters.values()
        run.__signature__ = inspect.Signature([*own[bool(wants_json) :], *shared])  # type: ignore[attr-defined]
        of.command(name or function.__name__.replace("_", "-"), rich_help_panel=panel)(run)
        return function

    return declare


def make_sure(yes: bool, question: str, otherwise: str, *, without_terminal: str) -> None:
    """Ask a person, unless they said --yes. Raises Problem (`otherwise`) if they say no, Usage where there is nobody to ask."""
    if not yes and not sys.stdin.isatty():
        raise Usage(f"{without_terminal}; say --yes where there is no terminal to ask on")
    if not yes and not typer.confirm(visible(question), err=True):
        raise Problem(otherwise)
