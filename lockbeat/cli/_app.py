"""The command line: its options, and what becomes of an error."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from lockbeat.cli._command import app
from lockbeat.cli._errors import Problem, only_error
from lockbeat.cli._output import complain, is_terminal, show_utc
from lockbeat.cli._settings import configure, source
from lockbeat.errors import InvalidArgument, LockbeatError
from lockbeat.values.visible import visible

# In the order in which `--help` lists them.
OF_JOBS = ("jobs", "past", "control", "backfill", "applying", "plan", "calendars")
OF_A_STORE = (*OF_JOBS, "leases", "top", "tasks", "claims", "doctor", "web", "shadow")
for commands in ("serve", "check", "exec", *OF_A_STORE, "importing", "config"):
    import_module(f"lockbeat.cli.commands.{commands}")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"lockbeat {installed('lockbeat')}")
        except PackageNotFoundError:
            typer.echo("lockbeat (not installed)")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


# typer carries its own click from 0.2x on: find the class by what both share.
_CLICK_USAGE: type[Exception] = typer.BadParameter.__mro__[1]


def _stand_in() -> None:
    """Have /dev/null in the place of standard files that the caller has closed: what is opened next would take their numbers."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - for as long as the process lives


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing the answer may meet: a disk that is full, a terminal that is gone."""


def _name(param: Any) -> str:
    """An option as it is typed, without its dashes."""
    return str(max(param.opts, key=len)).lstrip("-")


def _blamed(command: Any, words: Sequence[str], problem: str) -> str:
    """A problem that begins with the name of an option. If nobody typed that, it begins with the variable or the file."""
    name, colon, rest = problem.partition(": ")
    said = source(command, words, name) if colon and " " not in name else None
    return f"{said}: {rest}" if said else problem


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    _stand_in()
    app.rich_markup_mode = "rich" if is_terminal() else None
    show_utc(False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal's encoding lacks
    command = typer.main.get_command(app)
    words = sys.argv[1:] if args is None else list(args)
    try:
        configure(command)
        code = command.main(None if args is None else list(args), prog_name="lockbeat", standalone_mode=False)
        sys.stdout.flush()
    except _CLICK_USAGE as problem:
        context = getattr(problem, "ctx", None)
        if (param := getattr(problem, "param", None)) is not None and (said := source(command, words, _name(param))):
            problem.param_hint = f"'{said}'"  # type: ignore[attr-defined] # nobody typed the option that it would name
        path = context.command_path if context is not None else "lockbeat"
        message = problem.format_message().replace("Value error, ", "")  # type: ignore[attr-defined]
        if type(problem).__name__ == "NoSuchOption" and not getattr(problem, "option_name", "--").startswith("--"):
            message = f"{message.rstrip('.')}; a name that begins with a dash stands after --"
        complain(f"{message.rstrip('.')} (see {path} --help)")
        return 2
    except BrokenPipeError:
        # The reader has had enough (`| head`); what is left in the buffer must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:  # noqa: BLE001 - what is not ours is shown whole, as Python would, but safely
        found = only_error(error)
        if isinstance(found, Problem):
            sys.stderr.write(visible(found.details, keep="\n\t"))
            complain(_blamed(command, words, str(found)))
            return found.code
        if isinstance(found, LockbeatError):
            complain(_blamed(command, words, str(found)))
            return 2 if isinstance(found, InvalidArgument) else 1
        if isinstance(found, OSError) and found.errno in _FULL and found.filename is None:
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # first: what is left in the buffer is written once more
            complain(f"the answer can't be written: {found.strerror}")
            return 1
        sys.stderr.write(visible(traceback.format_exc(), keep="\n\t"))
        return 1
    return code if isinstance(code, int) else 0
