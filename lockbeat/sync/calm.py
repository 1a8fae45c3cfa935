"""No signal handler raises in the main thread while that turns an event loop, and leaves it half turned."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the public functions make an enum of each answer, which takes ten times as long
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lockbeat.process import forks

_SIGINT = int(signal.SIGINT)
_NUMBERS = sorted({int(number) for number in signal.valid_signals()})
_AT = _NUMBERS.index(_SIGINT)


class Calm:
    """`if calm.begin(): ...; calm.end()`. Ctrl-C is kept until the end; `told` is called when it comes."""

    def __init__(self, told: Callable[[], object]) -> None:
        self._told = told
        self._main = threading.main_thread().ident
        self._generation = forks.generation
        self._known: list[Any] = []
        """Handlers of which none raises but that of Ctrl-C."""
        self._pressed = self._keeps = False

    def begin(self) -> bool:
        """False: handlers of the program's own may raise at any moment, so it can't be had."""
        if threading.get_ident() != self._main:
            return True
        handlers = [*map(_signal.getsignal, _NUMBERS)]
        if handlers != self._known:
            ours = signal.default_int_handler
            if any(callable(handler) and (handler is not ours or at != _AT) for at, handler in enumerate(handlers)):
                return False
            self._known = handlers
        if handlers[_AT] is signal.default_int_handler:
            self._pressed = False
            _signal.signal(_SIGINT, self._press)
            self._keeps = True
        return True

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._generation != forks.generation:  # the main thread was in it when another one forked this process
            _signal.signal(_SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self._pressed = True
        self._told()

    def end(self) -> None:
        """Raises KeyboardInterrupt, if it came meanwhile."""
        if self._keeps and threading.get_ident() == self._main:
            self._keeps = False
            _signal.signal(_SIGINT, signal.default_int_handler)
            if self._pressed:
                raise KeyboardInterrupt
