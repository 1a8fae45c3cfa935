"""run, beat, worker: serve a beat in this process; server: keep the embedded store up."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from lockbeat.cli._errors import Problem, only_error
from lockbeat.cli._load import load_beat, own_error
from lockbeat.cli._output import say
from lockbeat.cli._store import refused, unreachable
from lockbeat.connection import parse_url
from lockbeat.errors import LifespanError, LockbeatError, MissingExtra, StoreError, StoreUnavailable
from lockbeat.values.visible import visible


def serve(
    target: str,
    url: str | None,
    namespace: str | None,
    verbose: int,
    *,
    schedule: bool,
    work: bool,
    factory: bool = False,
    queues: Sequence[str] | None = None,
    concurrency: int | None = None,
) -> None:
    """Serve the beat that `target` names until SIGTERM or SIGINT."""
    beat = load_beat(target, factory=factory)
    beat.narrow(queues=queues or None, concurrency=concurrency)
    _log_to_stderr(verbose)
    if url is not None or namespace is not None:
        beat.move(url, namespace=namespace)
    if not beat.declared and not (work and beat.task_names):
        logging.getLogger("lockbeat").warning("%s declares nothing of its own to do here; it serves what others declared", target)
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


class _Printable(logging.Formatter):
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


def _log_to_stderr(verbose: int) -> None:
    """A user's own logging, set up on import, stays as it is; what it would show is not shown twice."""
    root, log = logging.getLogger(), logging.getLogger("lockbeat")
    if not _has_handler(root):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(message)s"))
        handler.addFilter(_is_unshown)
        root.addHandler(handler)
        root.setLevel(logging.INFO if verbose else logging.WARNING)
    if log.level == logging.NOTSET:
        log.setLevel(logging.DEBUG if verbose else logging.INFO)
    for each in (log, logging.getLogger("lockbeat.run")):
        each.__class__ = _NeverDisabled


def serve_store(path: str | None, port: int | None) -> None:
    """Keep the embedded store of a directory up until SIGTERM or SIGINT."""
    try:
        from lockbeat.embedded import EmbeddedServer, serve_forever
    except ImportError as error:  # no fcntl
        raise MissingExtra("the embedded store needs Linux or macOS; set LOCKBEAT_URL to a Redis or Valkey") from error

    def announce(server: EmbeddedServer) -> None:
        also = f", redis://127.0.0.1:{port} without a password" if port is not None else ""
        say(f"serving embedded://{server.directory} (pid {server.pid}{also}); it guards this machine only")
        sys.stdout.flush()

    serve_forever(path, port, on_ready=announce)
