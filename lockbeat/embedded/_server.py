"""EmbeddedServer: one process' use of the server of a directory, counted across threads and forks."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lockbeat.embedded import _locks
from lockbeat.embedded._launch import LOAD_TIMEOUT, ServerProcess, ask
from lockbeat.embedded._paths import prepare, socket_path
from lockbeat.errors import StoreUnavailable

_log = logging.getLogger("lockbeat")


class EmbeddedServer:
    """This process' use of the server of one directory; made by `EmbeddedServer.open`.

    Any number may be open in one process: they share one reference, and the last `close()` gives it back.
    """

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._pid = os.getpid()
        self._closed = False

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None, *, persist: bool = True) -> EmbeddedServer:
        """Join the server of `path`, starting it first when none runs. Blocks, usually for some milliseconds.

        persist: False keeps nothing on disk; it counts for the process that starts the server.

        Raises: InvalidArgument when the directory can't be trusted. MissingExtra without a server binary. StoreUnavailable, with
        the end of the server's log, when it does not come up.
        """
        directory = prepare(path)
        with _registry_lock:
            shared = _registry.setdefault(directory, _Shared(directory))
        shared.join(persist)
        return cls(shared)

    @property
    def directory(self) -> Path:
        """The real path of the directory that names this server."""
        return self._shared.directory

    @property
    def socket_path(self) -> str:
        """The unix socket that clients connect to."""
        return self._shared.server.socket_path

    @property
    def pid(self) -> int | None:
        """The server's process id, asked of the server itself; None when it does not answer."""
        info = ask(self.socket_path, "INFO", "server")
        for line in (info or b"").splitlines():
            if line.startswith(b"process_id:"):
                return int(line.partition(b":")[2])
        return None

    def ensure_running(self) -> None:
        """Bring the server back when it died. One PING when it is well; blocks for its start when not.

        In a forked child this also registers the child as a user of its own. Raises StoreUnavailable.
        """
        if self._closed:
            raise StoreUnavailable(f"the use of the embedded store at {self.directory} was closed")
        if self._pid == os.getpid():
            self._shared.ensure_running()
        else:
            self._shared.join(self._shared.persist)
            self._pid = os.getpid()

    def close(self) -> None:
        """Stop using the server; the last user of all processes ends it, and its data stays. Idempotent.

        Blocks until the server is gone, up to 15 s. In a forked child that never used the server: nothing.
        """
        if self._closed:
            return
        self._closed = True
        if self._pid == os.getpid():
            self._shared.leave()

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Shared:
    """What the EmbeddedServers of one directory in this process have in common: one reference."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = ServerProcess(directory, socket_path(directory))
        self.persist = True
        self._mutex = threading.Lock()
        self._uses = 0
        self._membership: list[int] = []  # fds whose shared locks say that this process is a user
        self._announced = False

    def join(self, persist: bool) -> None:
        # All under `lock`: a leaver that found no other user sends SHUTDOWN under it, and a joiner beside it
        # would get its PING answered by a server about to end.
        with self._mutex, self._lock():
            if self._uses == 0:
                self.persist = persist
                self._enter()
            try:
                self.server.ensure_running(persist=self.persist)
            except BaseException:
                if self._uses == 0:
                    self._exit()
                raise
            self._uses += 1
            announce, self._announced = not self._announced, True
        if announce:
            _log.warning(
                "embedded store at %s guards this machine only; set LOCKBEAT_URL to a Redis or Valkey that "
                "every host reaches before running on more than one",
                self.directory,
            )

    def leave(self, *, entirely: bool = False) -> None:
        """Give back one use, or all of them; with the last one this process stops being a user."""
        with self._mutex:
            if self._uses == 0:
                return
            self._uses = 0 if entirely else self._uses - 1
            if self._uses > 0:
                return
            try:
                with self._lock():
                    self._exit()
                    if _locks.is_free(self.directory / "users"):
                        self.server.stop()
            except StoreUnavailable as error:
                _log.warning("embedded store at %s could not be left in order: %s", self.directory, error)
            finally:
                self._exit()

    def ensure_running(self) -> None:
        if self.server.answers():
            return
        with self._mutex, self._lock():
            self.server.ensure_running(persist=self.persist)

    def forget_parent(self) -> None:
        """In a forked child: the parent's use is not ours, and a thread we don't have may hold the mutex."""
        self._mutex = threading.Lock()
        self._uses = 0
        self._membership = []

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Raises StoreUnavailable, also for what the directory's file system refuses: it is full, or read-only by now."""
        try:
            with _locks.exclusive(self.directory / "lock", LOAD_TIMEOUT):
                yield
        except OSError as error:
            raise StoreUnavailable(f"embedded store at {self.directory}: {error}") from error

    def _enter(self) -> None:
        users = _locks.open_fd(self.directory / "users")
        self._membership.append(users)
        _locks.take(users, fcntl.LOCK_SH, time.monotonic() + LOAD_TIMEOUT)
        os.utime(users)  # the watch sees that somebody came, though it looks only now and then
        # systemd-tmpfiles ages out what lies in /tmp for ten days, and passes by a directory that is locked.
        with contextlib.suppress(OSError):
            itself = _locks.keep(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            self._membership.append(itself)
            fcntl.flock(itself, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _exit(self) -> None:
        for fd in self._membership:
            _locks.close_fd(fd)
        self._membership = []


_registry: dict[Path, _Shared] = {}
_registry_lock = threading.Lock()


def _leave_all() -> None:
    for shared in list(_registry.values()):
        shared.leave(entirely=True)


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    _locks.drop_inherited()
    for shared in _registry.values():
        shared.forget_parent()


# An orderly exit gives the reference back even when nobody called close().
atexit.register(_leave_all)
os.register_at_fork(after_in_child=_after_fork)
