"""Ends the server of a directory when nobody has used it for some minutes: its users were killed, and left nobody to do it.

A program of its own, `python -I -S _watch.py SERVER_SOCKET IDLE_SECONDS` in that directory, which imports nothing of ours. One
sleeps beside each server, and holds the lock `watch` for as long as it lives: it has inherited it from whoever started it.

Whether there is a user is asked under `lock`, as everything is. Who joins holds that until it stands among the users, so nobody
is ever given a server that is about to end. An idle connection tells at once when the server has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import sys
import time
from collections.abc import Iterator

LOOKS = 10
"""How often it looks within the time that a server may be idle."""


class Watch:
    """One server, from the directory that is this process' own."""

    def __init__(self, server: str, idle: float) -> None:
        self.server = server
        self.pause = idle / LOOKS
        self.users = os.open("users", os.O_RDWR)  # kept: the directory may be removed while there are users
        self.link = self.connect()
        self.unused = 0
        self.joined = -1

    def run(self) -> None:
        while True:
            if self.link is None:
                time.sleep(min(self.pause, 1.0))
            elif not select.select([self.link], [], [], self.pause)[0]:
                with locked():
                    self.look()
                continue
            with locked() as there:
                # Ended, or brought back: whoever does that holds the lock until it answers. Both locks go at once with this
                # process, so whoever starts the next server starts a watch as well.
                if not there or is_free("alive"):
                    os._exit(0)
                self.link = self.connect()

    def look(self) -> None:
        """Count how often there was no user, nor has been one in between; at last end the server."""
        before, self.joined = self.joined, os.fstat(self.users).st_mtime_ns
        alone = take(self.users) and is_free("users")
        self.unused = self.unused + 1 if alone and self.joined == before else 0
        if self.unused >= LOOKS and self.link is not None:
            self.unused = 0
            with contextlib.suppress(OSError):
                self.link.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
                if self.link.recv(100):
                    return  # it can't now, and says why in its log
            # However long it takes: whoever joined meanwhile would be given a server that is about to end.
            while not is_free("alive"):
                time.sleep(0.01)
            os._exit(0)

    def connect(self) -> socket.socket | None:
        """The idle connection; None where nobody answers."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(self.server)
        except OSError:
            link.close()
            return None
        return link


@contextlib.contextmanager
def locked() -> Iterator[bool]:
    """Hold `lock`; False: the directory was removed, so nobody can come by it any more."""
    while True:
        try:
            fd = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            yield False
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat("lock")):
                    yield True
                    return
        finally:
            os.close(fd)


def is_free(name: str) -> bool:
    """Whether nobody holds any lock on a file, or there is none."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return take(fd)
    finally:
        os.close(fd)


def take(fd: int) -> bool:
    """Hold the lock for an instant, to find out whether it is free."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


if __name__ == "__main__":
    Watch(sys.argv[1], float(sys.argv[2])).run()
