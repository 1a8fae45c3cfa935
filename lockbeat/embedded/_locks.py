"""Advisory locks on files, with deadlines, that a forked child does not inherit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lockbeat.embedded._paths import make, open_ours
from lockbeat.errors import StoreUnavailable

_open_fds: set[int] = set()


def open_fd(path: Path) -> int:
    """Open a lock file; give it back with `close_fd`."""
    return keep(open_ours(path, os.O_RDWR | os.O_CREAT))


def keep(fd: int) -> int:
    """Have a forked child close its copy; give it back with `close_fd`."""
    _open_fds.add(fd)
    return fd


def close_fd(fd: int, *, unlock: bool = True) -> None:
    """Give up a lock file and its lock; `unlock=False` leaves the lock to a process that inherited it."""
    if fd not in _open_fds:  # a forked child: the number may be another file's by now
        return
    _open_fds.discard(fd)
    with contextlib.suppress(OSError):
        # Closing is not enough: a child forked a moment ago holds a copy until it gets to `drop_inherited`.
        if unlock:
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def take(fd: int, kind: int, deadline: float) -> None:
    """Lock by asking again in short steps, since a blocking flock knows no deadline (monotonic seconds)."""
    for pause in pauses():
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreUnavailable("the embedded store is being started or ended by a stuck process") from None
            time.sleep(pause)
        else:
            return


def is_free(path: Path) -> bool:
    """Whether nobody holds any lock on the file. It is held for an instant to find out."""
    fd = open_fd(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        close_fd(fd)
    return True


@contextlib.contextmanager
def exclusive(path: Path, timeout: float) -> Iterator[None]:
    """Hold the file's lock; StoreUnavailable after `timeout` seconds of waiting for it."""
    deadline = time.monotonic() + timeout
    while True:
        make(path.parent)
        fd = open_fd(path)
        try:
            take(fd, fcntl.LOCK_EX, deadline)
            # A file that was removed while we waited is a lock that nobody else will look at.
            if _is_still(fd, path):
                yield
                return
        finally:
            close_fd(fd)


def pauses() -> Iterator[float]:
    """Seconds between looks: short at first, since a server is up in 30 ms, and at most 50 ms."""
    pause = 0.001
    while True:
        yield pause
        pause = min(pause * 1.5, 0.05)


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def drop_inherited() -> None:
    """In a forked child: close our copies, which leaves the parent's locks alone.

    Kept open, they would hold those locks for as long as the child lives.
    """
    for fd in list(_open_fds):
        with contextlib.suppress(OSError):
            os.close(fd)
    _open_fds.clear()
