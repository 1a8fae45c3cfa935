-- _lib/pause: why no slot of a job is fired for a while, and who has done what to a job.
--
--   paused   hash  JOB -> the change by which it is paused
--   changes  hash  JOB -> its last fifty, the newest last, \255 between them; '' -> the last fifty jobs of the shard that were deleted
--
-- A change is "WHAT AT UNTIL \254BY\254WHY". WHAT: the verb; put: its definition was changed. UNTIL: when the pause ends by itself; of skip_next
-- the last slot that is skipped; 0: when somebody resumes it. BY empty: its time had come. WHY of a delete: the job; of a put that
-- changed the trigger: a word, and after a \30 the trigger that it had, as JSON of at most 500 bytes.
-- A paused job's slot is due NEVER, see _lib/schedule.
-- needs: _lib/schedule _lib/reasons

local MOST_CHANGES = 50

local function change_text(what, at, ends, by, why)
  return what .. ' ' .. int(at) .. ' ' .. int(ends) .. ' \254' .. by .. '\254' .. why
end

-- WHAT, AT, UNTIL, BY and WHY; unreadable is an error.
local function change_parse(part, job, text)
  local what, at, ends, by, why = string.match(text, '^(%l[%l_]*) (%d+) (%d+) \254([^\254]*)\254(.*)$')
  if not what then unreadable(part[KEY], job) end
  return what, tonumber(at), tonumber(ends), by, why
end

-- A log that can't be read begins anew: it decides nothing.
local function change_note(changes, job, text)
  local said = read(changes, job)
  if not said then return write(changes, job, text) end
  local _, between = string.gsub(said, '\255', '')
  if between >= MOST_CHANGES - 1 then said = string.match(said, '^[^\255]*\255(.*)$') end
  write(changes, job, said .. '\255' .. text)
end

-- Why slots of a paused job are skipped: CODE and detail. `line`: the change by which it is paused; nil: that was lost.
local function pause_says(paused, job, line)
  if not line or line == '' then return REASON.PAUSED, 'somebody' end
  local what, _, _, who, why = change_parse(paused, job, line)
  return what == 'skip_next' and REASON.SKIP_NEXT or REASON.PAUSED, why == '' and who or who .. ': ' .. why
end

-- Forget all of this: the job is gone.
local function pause_drop(paused, changes, job)
  erase(paused, job)
  erase(changes, job)
end
