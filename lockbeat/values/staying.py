"""What stays where it is."""

from __future__ import annotations

from typing import NoReturn

BLOCK = "a block can't be copied, nor sent to another process: make one there, of a client that is opened there"
"""Of a lock or a claim."""


class Stays:
    """Belongs to a client that is open. A copy would be of no use; that of a block, when dropped, would end its lease."""

    _stays = "what belongs to an open Lockbeat can't be copied, nor sent to another process: open one there"

    def __reduce__(self) -> NoReturn:
        raise TypeError(self._stays)
