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


def _log_to_stderr(verbose: int) -> None:
    """A user's own logging, set up on import, stays as it is."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)-7s %(message)s",
        stream=sys.stderr,
    )
    log = logging.getLogger("lockbeat")
    if log.level == logging.NOTSET:
        log.setLevel(logging.DEBUG if verbose else logging.INFO)


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
