"""The process between `lockbeat exec` and its command: it starts the command, and sees that it does not outlive the lock.

It is forked before there are threads, and waits to be told to start. From then on it is told until when the lock is trusted. If
it hears no more (the one that renews was frozen, or hangs), it ends the command by itself: SIGTERM `grace` before that time,
SIGKILL at it. When its link is closed (the one that renews was killed), it ends the command at once. If it is killed itself,
Linux kills the command, and the one that renews kills the rest of the process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NoReturn

from lockbeat.values.visible import visible

FORWARDED = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT")
)
"""The signals that the command gets in place of the one who started it."""
TO_ALL = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Those that its whole process group gets, as from a terminal; the others are for the command alone."""
PR_SET_PDEATHSIG = 1
UNWRITTEN = 74
"""As sysexits.h has it: EX_IOERR."""
LOOK_AGAIN = 0.02
"""Seconds between two looks at whether a process group is gone, of which nobody tells us."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; 128 and the signal's number, if it was ended by one."""
    signal: int
    """That signal; 0: none."""
    overdue: bool
    """The guardian had to end it, for it heard no more that the lock is trusted."""
    unwritten: str = ""
    """Why what it wrote did not arrive where it goes; empty: nothing is known to be lost."""

    @property
    def told(self) -> int:
        """The exit code that says how it went: its own; UNWRITTEN where that is 0, and what it wrote is lost."""
        return self.code or (UNWRITTEN if self.unwritten else 0)

    def __str__(self) -> str:
        lost = f", and what it wrote is lost ({self.unwritten})" if self.unwritten else ""
        return (f"ended by {signal.Signals(self.signal).name}" if self.signal else f"exit code {self.code}") + lost


class Guardian:
    """The other side: what `lockbeat exec` knows of the process that guards its command."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.link, self.pid = link, pid
        self.group = 0
        """The command's process group, once it was started; 0 before, and when it has ended."""
        self._until = 0.0
        self._heard = b""

    @classmethod
    def fork(
        cls, command: Sequence[str], grace: float, stdout: int = 1, stderr: int = 2, ours_alone: Iterable[int] = ()
    ) -> Guardian:
        """Make it, while this process has one thread.

        stdout, stderr: descriptors that the command is to have as such; closed here. ours_alone: those that are closed there.
        """
        ours, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for fd in ours_alone:
                os.close(fd)
            _Guarding(its, command, grace, stdout, stderr).serve()
        its.close()
        for fd in {stdout, stderr} - {1, 2}:
            os.close(fd)
        return cls(ours, pid)

    def start(self, env: Mapping[str, str | None], until: float) -> None:
        """Start the command. env: variables beside its own; None: it is to have none of that name. until: as for `trust`."""
        self._until = until
        self._say(start=env, until=until)

    def trust(self, until: float) -> None:
        """The lock is trusted until then, in monotonic seconds."""
        if until > self._until:
            self._until = until
            self._say(until=until)

    def stop(self) -> None:
        """SIGTERM now, SIGKILL when the grace is over."""
        self._say(stop=True)

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        self._say(signal=number)

    def _say(self, **words: Any) -> None:
        with contextlib.suppress(OSError):  # it has ended: that is what is heard next
            self.link.sendall(json.dumps(words).encode() + b"\n")

    def hear(self, data: bytes) -> Ended | None:
        """What it says, as it comes in; empty: it is gone. How the command ended, or None: it has not."""
        if not data:
            if self.group:  # it was killed, and with it, on Linux, the command itself
                with contextlib.suppress(OSError):
                    os.killpg(self.group, signal.SIGKILL)
            return Ended(128 + signal.SIGKILL, signal.SIGKILL, overdue=False)
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.group = said.get("group", self.group)
            if "status" in said:
                self.group = 0
                code = os.waitstatus_to_exitcode(said["status"])
                return Ended(128 - code if code < 0 else code, max(-code, 0), said["overdue"])
        return None

    def close(self) -> None:
        """Let it go, and wait until it has."""
        self.link.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class _Guarding:
    """The guardian's own process."""

    def __init__(self, link: socket.socket, command: Sequence[str], grace: float, stdout: int, stderr: int) -> None:
        self._link: socket.socket | None = link
        """None: the one that renews is gone."""
        self._command, self._grace = command, grace
        self._out, self._err = stdout, stderr
        self._child = 0
        self._until = float("inf")
        self._kill_at = float("inf")
        self._told = self._killed = self._overdue = False
        self._status: int | None = None
        """Of the command, which has ended, and what it has started is still to end."""

    def serve(self) -> NoReturn:
        code = 1
        try:
            self._guard()
            code = 0
        except BaseException as problem:  # noqa: BLE001 - it must not go on as a copy of its parent
            os.write(2, f"lockbeat: the guardian of the command failed: {problem!r}\n".encode())
            if self._child:
                self._kill(signal.SIGKILL)
        finally:
            os._exit(code)

    def _guard(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = {number: signal.getsignal(number) for number in FORWARDED}
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)  # they come by the link
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        said = b""
        while True:
            left = min(self._until - self._grace * (not self._told), self._kill_at) - monotonic() if self._child else None
            if self._status is not None:
                left = LOOK_AGAIN
            listened: list[Any] = [reading] if self._link is None else [reading, self._link]
            ready, _, _ = select.select(listened, [], [], None if left is None or left == float("inf") else max(left, 0))
            if reading in ready:
                os.read(reading, 512)
            if self._child and self._has_ended():
                return
            if self._link in ready:
                data = self._received()
                if not data:
                    if not self._child:
                        return
                    self._link = None
                    self._stop()
                *lines, said = (said + data).split(b"\n")
                for line in lines:
                    self._told_to(json.loads(line), before)
            self._look()

    def _received(self) -> bytes:
        try:
            return b"" if self._link is None else self._link.recv(1 << 16)
        except OSError:
            return b""

    def _say(self, **words: Any) -> None:
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.sendall(json.dumps(words).encode() + b"\n")

    def _told_to(self, words: dict[str, Any], before: Mapping[int, Any]) -> None:
        self._until = words.get("until", self._until)
        if "start" in words:
            self._start(words["start"], before)
        if "stop" in words and self._child:
            self._stop()
        if "signal" in words and self._child:
            self._pass_on(words["signal"])

    def _look(self) -> None:
        """End the command whose lock is not known to be held."""
        now = monotonic()
        if not self._child:
            return
        if now >= self._until - self._grace and not self._told:
            self._overdue = True
            self._terminate()
        if now >= min(self._until, self._kill_at):
            self._overdue = self._overdue or now >= self._until
            self._until = self._kill_at = float("inf")
            self._kill(signal.SIGKILL)
            self._killed = True

    def _stop(self) -> None:
        self._kill_at = min(self._kill_at, monotonic() + self._grace)
        self._terminate()

    def _terminate(self) -> None:
        if not self._told:
            self._told = True
            self._kill(signal.SIGTERM)
            self._kill(signal.SIGCONT)  # one that was stopped would not hear it

    def _kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child, number)

    def _pass_on(self, number: int) -> None:
        if number in TO_ALL:
            self._kill(number)
        elif self._status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._child, number)

    def _has_ended(self) -> bool:
        """Whether the command has; and, where it had to be ended, all of its process group, too."""
        if self._status is None:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if not pid:
                return False
            self._status = status
        if self._told and self._is_there():
            return False
        _hand_terminal(self._child, os.getpgrp())
        self._say(status=self._status, overdue=self._overdue)
        return True

    def _is_there(self) -> bool:
        """Whether any of its process group is."""
        if self._killed:
            return False
        try:
            os.killpg(self._child, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _start(self, env: Mapping[str, str | None], before: Mapping[int, Any]) -> None:
        group = os.getpgrp()
        ours, libc = os.getpid(), ctypes.CDLL(None) if sys.platform == "linux" else None
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # they wait until the command can hear them
        self._child = os.fork()
        if self._child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            with contextlib.suppress(OSError):
                os.setpgid(self._child, self._child)  # as it does: whichever is first
            self._say(group=self._child)
            for fd in {self._out, self._err} - {1, 2}:
                os.close(fd)
            return
        code = 126
        try:
            os.setpgid(0, 0)
            _hand_terminal(group, os.getpid())
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                ignored = handler is signal.SIG_IGN and number != signal.SIGCONT
                signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
            for number in (signal.SIGCHLD, signal.SIGPIPE, *((signal.SIGXFSZ,) if hasattr(signal, "SIGXFSZ") else ())):
                signal.signal(number, signal.SIG_DFL)
            if os.isatty(0):
                signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # stopped, it would keep the lock from others
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            os.dup2(self._out, 1)
            os.dup2(self._err, 2)
            for name, value in env.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            if libc is not None:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != ours:  # it died before that was said
                    os._exit(128 + signal.SIGKILL)
            os.execvp(self._command[0], list(self._command))  # noqa: S606 - what the user asks for
        except FileNotFoundError:
            code = 127
            os.write(2, f"lockbeat: {visible(self._command[0])}: command not found\n".encode())
        except OSError as problem:
            os.write(2, f"lockbeat: {visible(self._command[0])}: {problem.strerror}\n".encode())
        finally:
            os._exit(code)


def _hand_terminal(giver: int, group: int) -> None:
    """Have a process group read from the terminal that is our stdin, and be signalled by it, if it was the giver's."""
    if not os.isatty(0):
        return
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        if os.tcgetpgrp(0) == giver:
            os.tcsetpgrp(0, group)
    signal.signal(signal.SIGTTOU, before)
