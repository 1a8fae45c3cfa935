-- _lib/results: what scripts answer, by name: a number means the same in every script. lockbeat/store/results.py is the same page.
--
-- Above 0: done. Where a time is asked for, it stands in the place of DONE, in ms. 0 and below: nothing was changed, and why.

local RESULT = {
  SET_BACK = 8,     -- the server's clock was set back since slots were placed
  LOST = 7,         -- something was lost of what is known of the jobs
  ADOPTED = 6,      -- it was there, unconfirmed until its durability is known, and is this call's to confirm from now on
  NEW = 5,          -- nothing was known of it
  CHANGED = 4,      -- it had another definition
  STARTED = 3,      -- fired, and begun under a lease of the caller's
  WAITING = 2,      -- it waits in its queue
  DONE = 1,         -- so it is, by this call
  NO = 0,           -- it is not so, or was so before
  UNKNOWN = -1,     -- there is no such task, claim or job
  EXPIRED = -2,     -- its lease ran out, and may have been taken back since
  FINISHED = -3,    -- it had ended
  ANOTHERS = -4,    -- another owner's
  STALE = -5,       -- of another fence: somebody has begun it since
  CANCELLED = -6,   -- it was cancelled: its body is to stop
  DEAD = -7,        -- its attempts are used up
  NOT_YOURS = -8,   -- of another owner or fence, expired and taken back, or ended
  TOO_LATE = -9,    -- what it depends on has gone on
  BUSY = -10,       -- somebody is at it
  REMEMBERED = -11, -- it is done, and remembered as such
  NEWER = -12,      -- only a newer version can read what is there
  PAUSED = -13,     -- somebody has paused it
  CALLED = -14,     -- only who calls for the job's slots runs it
}
