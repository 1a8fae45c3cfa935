"""run, beat, worker: serve a beat in this process; server: keep the embedded store up; demo."""

from __future__ import annotations

import inspect
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from lockbeat.cli._command import SERVE, STORE, app
from lockbeat.cli._errors import Problem, only_error
from lockbeat.cli._exposing import (
    LOOPBACK,
    Bind,
    HealthLimit,
    HealthPort,
    MetricsDynamic,
    MetricsPort,
    Ports,
    exposed,
)
from lockbeat.cli._load import Beat, asynchronous, load_beat, own_error
from lockbeat.cli._output import say
from lockbeat.cli._store import refused, unreachable
from lockbeat.connection import parse_url
from lockbeat.errors import LifespanError, LockbeatError, MissingExtra, StoreError, StoreUnavailable
from lockbeat.logs import JsonFormatter, RunFilter, TextFormatter
from lockbeat.values.visible import visible


def _log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise typer.BadParameter(f"{text!r} is neither text nor json")
    return text


def _declare(name: str, says: str, *, schedule: bool, work: bool) -> None:
    """One of the commands that serve a beat."""

    def serve(
        target: Annotated[
            str, typer.Argument(metavar="MODULE:BEAT", help="The Beat: app.jobs:beat, path/jobs.py:beat, app:make().")
        ],
        factory: Annotated[
            bool, typer.Option("--factory", help="BEAT is a function that makes it, as MODULE:FACTORY() says, too.")
        ] = False,
        queue: Annotated[
            list[str] | None, typer.Option(metavar="QUEUE", help="Run tasks of this queue only; may be repeated.")
        ] = None,
        concurrency: Annotated[
            int | None, typer.Option(metavar="N", min=1, max=10_000, help="How many tasks run at once; else the beat's own.")
        ] = None,
        url: Annotated[
            str | None,
            typer.Option(
                metavar="URL", help="The store, instead of the beat's own and $LOCKBEAT_URL. `ps` shows it: no passwords."
            ),
        ] = None,
        namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Instead of the beat's own.")] = None,
        health_port: HealthPort = None,
        health_limit: HealthLimit = None,
        metrics_port: MetricsPort = None,
        metrics_dynamic: MetricsDynamic = False,
        bind: Bind = LOOPBACK,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, on stderr.")] = False,
        log_format: Annotated[
            str | None, typer.Option(metavar="FORMAT", help="text, or json: a line of JSON a record.", parser=_log_format)
        ] = None,
    ) -> None:
        beat = load_beat(target, factory=factory)
        beat.narrow(queues=queue or None, concurrency=concurrency)
        log_to_stderr(verbose, log_format)
        if url is not None or namespace is not None:
            beat.move(url, namespace=namespace)
        if not beat.declared and not (work and beat.task_names):
            log = logging.getLogger("lockbeat")
            log.info("%s declares nothing of its own to do here; it serves what others declared", target)
        ports = Ports(health_port, metrics_port, bind, health_limit, metrics_dynamic)
        with exposed(asynchronous(beat), ports):
            _run(target, beat, schedule=schedule, work=work)

    signature = inspect.signature(serve, eval_str=True)
    taken = [option for option in signature.parameters.values() if work or option.name not in ("queue", "concurrency")]
    serve.__signature__ = signature.replace(parameters=taken)  # type: ignore[attr-defined]
    app.command(name, help=says, rich_help_panel=SERVE)(serve)


_declare("run", "Serve a beat until SIGTERM: fire slots and run tasks.", schedule=True, work=True)
_declare("beat", "Serve a beat, schedules only: workers run its tasks.", schedule=True, work=False)
_declare("worker", "Serve a beat, runs only: others fire its slots.", schedule=False, work=True)


def _run(target: str, beat: Beat, *, schedule: bool, work: bool) -> None:
    """Serve it until SIGTERM or SIGINT."""
    try:
        beat.run(schedule=schedule, work=work)
    except BaseException as error:
        found = only_error(error)
        if isinstance(found, StoreError):
            if (address := parse_url(beat.url)).nodes:
                found = unreachable(address, found) if isinstance(found, StoreUnavailable) else refused(address, found)
            raise Problem(f"can't serve {target}: {found}") from error
        if isinstance(found, LifespanError):
            own = own_error(target, found.problem)
            raise Problem(f"can't serve {target}, the beat's lifespan {found.what}: {own}", details=own.details) from error
        if isinstance(found, (LockbeatError, KeyboardInterrupt)):
            raise found from None
        raise


class _NeverDisabled(logging.Logger):
    """logging.config.dictConfig and fileConfig disable the loggers that they do not name, at whatever time they are called."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


class _Printable(TextFormatter):
    """Whatever a logger of the user's is told of, it is safe on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n\t")


def _is_unshown(record: logging.LogRecord) -> bool:
    """Whether no handler of the user's, below the root, has shown the record already."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if _has_handler(logger):
            return False
        logger = logger.parent
    return True


def _has_handler(logger: logging.Logger) -> bool:
    return any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)


def log_to_stderr(verbose: int, log_format: str | None = None) -> None:
    """A user's own logging, set up on import, stays as it is; what it would show is not shown twice."""
    root, log = logging.getLogger(), logging.getLogger("lockbeat")
    if _has_handler(root):
        if log_format is not None:
            said = "--log-format %s is left aside: the program sets up logging of its own, where lockbeat.logs.JsonFormatter fits"
            log.warning(said, log_format)
    else:
        handler = logging.StreamHandler(sys.stderr)
        text = _Printable("%(asctime)s %(levelname)-7s %(message)s")
        handler.setFormatter(JsonFormatter() if log_format == "json" else text)
        handler.addFilter(_is_unshown)
        handler.addFilter(RunFilter())
        root.addHandler(handler)
        root.setLevel(logging.INFO if verbose else logging.WARNING)
    if log.level == logging.NOTSET:
        log.setLevel(logging.DEBUG if verbose else logging.INFO)
    for each in (log, logging.getLogger("lockbeat.run")):
        each.__class__ = _NeverDisabled


@app.command(rich_help_panel=STORE)
def server(
    path: Annotated[Path | None, typer.Argument(metavar="[PATH]", help="Its directory; else one a user.")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Also listen on 127.0.0.1.")] = None,
) -> None:
    """Keep the embedded store up until SIGTERM."""
    try:
        from lockbeat.embedded import EmbeddedServer, serve_forever
    except ImportError as error:  # no fcntl
        raise MissingExtra("the embedded store needs Linux or macOS; set LOCKBEAT_URL to a Redis or Valkey") from error

    def announce(server: EmbeddedServer) -> None:
        also = f", redis://127.0.0.1:{port} without a password" if port is not None else ""
        say(f"serving embedded://{server.directory} (pid {server.pid}{also}); it guards this machine only")
        sys.stdout.flush()

    serve_forever(None if path is None else str(path), port, on_ready=announce)


@app.command(rich_help_panel=SERVE)
def demo(
    seconds: Annotated[float, typer.Option(metavar="S", min=8, max=600, help="How long the instances run.")] = 20,
    instances: Annotated[int, typer.Option(metavar="N", min=2, max=9, help="How many there are.")] = 3,
) -> int:
    """Watch instances share jobs while one is killed, one frozen.

    Counts what the jobs did against what was due; exit code 1 if a slot was missed or fired twice.
    """
    from lockbeat.cli.demo import show_demo

    return show_demo(seconds, instances)
