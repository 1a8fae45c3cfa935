"""What a command writes goes where it would have gone, and its end is kept."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
from collections.abc import Callable

KEPT = 4096
"""Bytes of what it wrote last."""
LOSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)
"""Why a write fails whose reader has not gone: the disk is full, or broken."""


class Output:
    """Two pipes, or one where stdout and stderr are the same file, so that their order stays.

    In a thread: a reader who is slow to take it must not keep the event loop from hearing of a loss.
    """

    def __init__(self) -> None:
        reading, self.stdout = os.pipe()
        self._ways = {reading: 1}
        self.stderr = self.stdout
        if not _same(1, 2):
            reading, self.stderr = os.pipe()
            self._ways[reading] = 2
        self.trouble = ""
        """Where it did not arrive, and why; empty: nothing is known to be lost."""
        self._tail = bytearray()
        self._over, self._end = os.pipe()
        self._thread: threading.Thread | None = None

    @property
    def tail(self) -> str:
        """The last of it."""
        return bytes(self._tail).decode(errors="replace").lstrip("\N{REPLACEMENT CHARACTER}")

    @property
    def ours_alone(self) -> list[int]:
        """The descriptors of the reading side."""
        return [*self._ways, self._over, self._end]

    def pass_on(self, drained: Callable[[], None]) -> None:
        """From now on. `drained` is called in a thread when all is kept that was written before `finish`, and what goes to a
        file is there, or known to be lost.
        """

        def run() -> None:
            try:
                self._pass_on(drained)
            finally:
                drained()

        self._thread = threading.Thread(target=run, name="lockbeat output", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """The command has ended: what it left behind may still write, and nobody waits for that."""
        with contextlib.suppress(OSError):
            os.write(self._end, b"\0")

    def join(self) -> None:
        """Wait until it has all arrived where it goes."""
        if self._thread is not None:
            self._thread.join()

    def _pass_on(self, drained: Callable[[], None]) -> None:
        waiting: list[tuple[int, bytes]] = []  # a reader may be slow
        while self._ways:
            ready, _, _ = select.select([*self._ways, self._over], [], [])
            over = self._over in ready
            for reading in [*self._ways] if over else ready:
                if over:
                    os.set_blocking(reading, False)
                while True:
                    try:
                        data = os.read(reading, 1 << 16)
                    except BlockingIOError:
                        data = b""
                    if not data:
                        to = self._ways.pop(reading)
                        os.close(reading)
                        break
                    to = self._ways[reading]
                    self._tail += data
                    del self._tail[:-KEPT]
                    if over and _may_block(to):
                        waiting.append((to, data))
                    elif not self._write(to, data) and not over:
                        del self._ways[reading]
                        os.close(reading)  # as it would be without us: SIGPIPE
                    if not over:
                        break
        drained()
        for to, data in waiting:
            self._write(to, data)

    def _write(self, fd: int, data: bytes) -> bool:
        """Write it all; False: it can't be, or nobody reads it any more."""
        try:
            while data:
                try:
                    data = data[os.write(fd, data) :]
                except BlockingIOError:  # whoever shares it has made it so
                    select.select([], [fd], [])
        except OSError as problem:
            if problem.errno in LOSES:
                self.trouble = self.trouble or f"{'stdout' if fd == 1 else 'stderr'}: {problem.strerror}"
            return False
        return True


def _may_block(fd: int) -> bool:
    """Whether a write may wait for a reader: to a pipe, a socket or a terminal, and not to a file or a device like /dev/null."""
    try:
        mode = os.fstat(fd).st_mode
        return not stat.S_ISREG(mode) and (not stat.S_ISCHR(mode) or os.isatty(fd))
    except OSError:
        return True


def _same(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False
