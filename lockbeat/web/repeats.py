"""A form that a browser sends again by itself, as when a connection ended under the first answer, is done once.

Each page that is sent has a number of its own in its forms. The same form with the same number is the same press of a button.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from lockbeat.leases.lease import monotonic
from lockbeat.web.asked import Asked
from lockbeat.web.render import ONCE_FIELD

KEPT, SECONDS = 1000, 60.0
"""Presses that are known again: so many, the latest, and for so long; of one process."""

T = TypeVar("T")


class Repeats(Generic[T]):
    """What came of the latest presses."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, asyncio.Future[T]]] = OrderedDict()

    async def once(self, asked: Asked, do: Callable[[], Awaitable[T]]) -> T:
        """Do it, or tell what came of it before. What failed is done anew."""
        if not asked.form.get(ONCE_FIELD):
            return await do()
        said = [asked.user, asked.path, sorted(asked.form.items())]
        press = hashlib.sha256(json.dumps(said).encode()).digest()
        while (known := self._known.get(press)) is not None and monotonic() < known[0] + SECONDS:
            await asyncio.wait([known[1]])
            if not known[1].cancelled():
                return known[1].result()
        mine: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._known[press] = monotonic(), mine
        self._known.move_to_end(press)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        try:
            found = await do()
        except BaseException:
            if self._known.get(press, (0.0, None))[1] is mine:
                del self._known[press]
            mine.cancel()  # who waits for it tries itself
            raise
        mine.set_result(found)
        return found
