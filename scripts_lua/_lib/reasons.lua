-- _lib/reasons: why something became of a slot or a task, as a CODE; lockbeat/store/reasons.py makes a sentence of it.
--
-- A record keeps the CODE and, to its end, the DETAIL that the sentence names: an ID of a task, an OWNER, MS, a SLOT in ISO 8601.

local REASON = {
  OVERLAP = 'overlap',                    -- ID: the job's task ID had not ended
  OVERLAP_UNREAD = 'overlap_unread',      -- ID: of the job's task ID something can't be read
  OVERTAKEN = 'overtaken',                -- ID: under overlap buffer_one or cancel_other the later slot's task ID took its place
  BUFFERED = 'buffered',                  -- OWNER: fired by OWNER, it waits in line for the one before to end
  BUFFER_FULL = 'buffer_full',            -- NUMBER: so many wait in line, and more may not
  LOCK_HELD = 'lock_held',                -- OWNER: somebody else holds the job's lock
  LOCK_UNREAD = 'lock_unread',            -- the job's lock can't be read
  PAUSED = 'paused',                      -- OWNER: the job was paused, by OWNER and for the reason behind a colon
  SKIP_NEXT = 'skip_next',                -- OWNER: somebody had the next slots skipped, as above
  RETIRED = 'retired',                    -- the job had left the code
  EXCLUDED = 'excluded',                  -- CALENDAR ENTRY: a calendar of the job has that day
  NOT_FIRED = 'not_fired',                -- no instance was there when it came due
  NOT_CALLED = 'not_called',              -- nobody called for it
  LATE = 'late',                          -- MS: its window had passed, and catch-up is skip
  NOT_BEGUN = 'not_begun',                -- no worker had room before the next slot
  NOT_BEGUN_WITHIN = 'not_begun_within',  -- MS: no worker had room within the window
  TOOK_PLACE = 'took_place',              -- OWNER: fired by OWNER in the place of those that no worker began
  BACKFILLED = 'backfilled',              -- OWNER: fired by OWNER for a backfill, and waits
  FIRED = 'fired',                        -- OWNER: fired by OWNER, and waits: nothing to explain
  TRIGGER_CHANGED = 'trigger_changed',    -- another trigger took effect while it was due
  WENT_BACK = 'went_back',                -- the store went back to an earlier state: it may have run
  EMPTIED = 'emptied',                    -- the store was emptied in this time
  SLOT_LOST = 'slot_lost',                -- the store lost where the job stood
  CLOCK_SET_BACK = 'clock_set_back',      -- SLOT: the server's clock was set back: the next slot was SLOT
  RULES_CHANGED = 'rules_changed',        -- SLOT THEN NOW: the time zone's rules of version NOW don't have SLOT; by those of THEN it was reckoned
  UNREADABLE = 'unreadable',              -- what the ledger has of it can't be read
  EXPIRED = 'expired',                    -- its lease ran out
  RELEASED = 'released',                  -- all leases of its owner were released
  LEASE_DELETED = 'lease_deleted',        -- its lease was evicted, or deleted by hand
  SHUTDOWN = 'shutdown',                  -- its instance was shut down
  CANCELLED = 'cancelled',                -- BY: somebody cancelled it; empty: who is not known
  RETRIED = 'retried',                    -- it waits again, as somebody wanted
  MAX_DELAY = 'max_delay',                -- max_delay was over before it was begun
  MAX_DURATION = 'max_duration',          -- max_duration was over before it had ended
  RETRY_TOO_LATE = 'retry_too_late',      -- max_duration would be over before the retry
  JOB_DELETED = 'job_deleted',            -- its job was deleted
}
