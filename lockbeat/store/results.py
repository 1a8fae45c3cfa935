"""What scripts answer, by name: the counterpart of `scripts_lua/_lib/results.lua`.

A number means the same in every script. Above 0: done; where a time is asked for, it stands in the place of DONE, in ms.
0 and below: nothing was changed, and why.
"""

from __future__ import annotations

from typing import Final

SET_BACK: Final = 8
"""The server's clock was set back since slots were placed."""
LOST: Final = 7
"""Something was lost of what is known of the jobs."""
ADOPTED: Final = 6
"""It was there, held until its durability is known, and is this call's to confirm from now on."""
NEW: Final = 5
"""Nothing was known of it."""
CHANGED: Final = 4
"""It had another definition."""
STARTED: Final = 3
"""Fired, and begun under a lease of the caller's."""
WAITING: Final = 2
"""It waits in its queue."""
DONE: Final = 1
"""So it is, by this call."""
NO: Final = 0
"""It is not so, or was so before."""
UNKNOWN: Final = -1
"""There is no such task, claim or job."""
EXPIRED: Final = -2
"""Its lease ran out, and may have been taken back since."""
FINISHED: Final = -3
"""It had ended."""
ANOTHERS: Final = -4
"""Another owner's."""
STALE: Final = -5
"""Of another fence: somebody has begun it since."""
CANCELLED: Final = -6
"""It was cancelled: its body is to stop."""
DEAD: Final = -7
"""Its attempts are used up."""
NOT_YOURS: Final = -8
"""Of another owner or fence, expired and taken back, or ended."""
TOO_LATE: Final = -9
"""What it depends on has gone on."""
BUSY: Final = -10
"""Somebody is at it."""
REMEMBERED: Final = -11
"""It is done, and remembered as such."""
