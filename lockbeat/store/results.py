"""What scripts answer, by name: the counterpart of `scripts_lua/_lib/results.lua`.

A number means the same in every script. Above 0: done; where a time is asked for, it stands in the place of DONE, in ms.
0 and below: nothing was changed, and why.
"""

from __future__ import annotations

from typing import Final

SET_BACK: Final = 8  # the server's clock was set back since slots were placed
LOST: Final = 7  # something was lost of what is known of the jobs
ADOPTED: Final = 6  # it was there, unconfirmed until its durability is known, and is this call's to confirm from now on
NEW: Final = 5  # nothing was known of it
CHANGED: Final = 4  # it had another definition
STARTED: Final = 3  # fired, and begun under a lease of the caller's
WAITING: Final = 2  # it waits in its queue
DONE: Final = 1  # so it is, by this call
NO: Final = 0  # it is not so, or was so before
UNKNOWN: Final = -1  # there is no such task, claim or job
EXPIRED: Final = -2  # its lease ran out, and may have been taken back since
FINISHED: Final = -3  # it had ended
ANOTHERS: Final = -4  # another owner's
STALE: Final = -5  # of another fence: somebody has begun it since
CANCELLED: Final = -6  # it was cancelled: its body is to stop
DEAD: Final = -7  # its attempts are used up
NOT_YOURS: Final = -8  # of another owner or fence, expired and taken back, or ended
TOO_LATE: Final = -9  # what it depends on has gone on
BUSY: Final = -10  # somebody is at it
REMEMBERED: Final = -11  # it is done, and remembered as such
NEWER: Final = -12  # only a newer version can read what is there
PAUSED: Final = -13  # somebody has paused it
CALLED: Final = -14  # only who calls for the job's slots runs it
