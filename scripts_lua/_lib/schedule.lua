-- _lib/schedule: where the jobs stand.
--
-- KEYS[1] job        hash  JOB -> "REV JSON"
-- KEYS[2] job:order  zset  JOB, in lexical order
-- KEYS[3] job:slot   hash  see below
-- KEYS[4] job:due    zset
--
--   slots  hash  JOB -> "SLOT DUE REV RULES": its next slot; SLOT -1: it has ended, and is forgotten at DUE. '' -> "SEEN UNSURE SETTLED"
--   dues   zset  JOB by when to look at it next
--   paused hash  JOB -> the change by which it is paused, see _lib/pause; only where it is asked for
-- A retired job stands as one that has ended: "-1 DUE REV RULES retired NEXT AT". It retired at AT; NEXT is the first slot that was not fired.
-- A paused job's DUE is NEVER: nobody fires it then, also an instance that was told of its slot before, or knows of no pauses. `dues`
-- has it at the end of its pause, and whoever is handed it there resumes it.
-- Every job is in both, as it is in `defs` and in `order`: by that a loss shows. RULES: the version of the time zones' rules by which
-- the slot was reckoned. SEEN: the latest time at which slots were placed or handed out; it lies ahead when the clock was set back.
-- UNSURE: the store was seen in a later state before, and slots up to that time may have been fired by then. SETTLED: when SEEN was set
-- back itself.
-- needs: _lib/run _lib/results

local NEVER = '253402300800000'  -- the year 10000
local ENDED_MS = 7 * 86400 * 1000  -- a job that has ended is kept as long as a dead task
local LIMIT_MS = 366 * 86400 * 1000  -- one that was fired as often as it is to be, longer: declared again it would begin anew; a retired one, too

-- The keys, and SEEN and UNSURE, of which SEEN is nil if it was lost, or no job was ever placed. `jobs`: read where these stand as well.
local function schedule_of(defs, order, slots, dues, jobs, paused)
  local s = {defs = page(defs), order = index(order), slots = page(slots), dues = index(dues), paused = paused and page(paused)}
  local ids = {''}
  for i, job in ipairs(jobs or {}) do ids[i + 1] = job end
  gather(s.slots, ids)
  local seen, unsure, settled = string.match(read(s.slots, '') or '', '^(%d+) (%d+) (%d+)$')
  s.seen, s.unsure, s.settled = tonumber(seen), tonumber(unsure) or 0, tonumber(settled) or 0
  return s
end

-- With so many zeros that the hash of it is a hashed one, see firing_hash.
local function schedule_note(s)
  write(s.slots, '', int(s.seen) .. ' ' .. int(s.unsure) .. ' ' .. string.format('%060d', s.settled))
end

local function schedule_see(s)
  if s.seen and now <= s.seen then return end
  s.seen = now
  schedule_note(s)
end

-- Until when a job is paused; 0: until it is resumed; nil: it is not. If it was lost where the job stands, its pause decides; so it is
-- where the job has no slots now: it had some when it was paused, and may have some again.
local function schedule_until(s, job)
  local line, place = read(s.paused, job), read(s.slots, job)
  local slot, due = string.match(place or '', '^(%S+) (%S+)')
  if place and due ~= NEVER or not line and (not place or slot == '-1') then return nil end
  return tonumber(string.match(line or '', '^%S+ %d+ (%d+) ') or '0')
end

-- When to look next at a job that stands at `place`.
local function schedule_when(s, job, place)
  local slot, due = string.match(place, '^(%S+) (%S+)')
  local ends = due == NEVER and slot ~= '-1' and schedule_until(s, job) or 0
  return ends > 0 and ends or tonumber(due)
end

-- It has no slot any more. `words`: "REV RULES".
local function schedule_end(s, job, words, keep_ms)
  write(s.slots, job, '-1 ' .. int(now + keep_ms) .. ' ' .. words)
  enter(s.dues, job, now + keep_ms)
  if s.paused and read(s.paused, job) then erase(s.paused, job) end
end

-- A job has no slots until it is declared again. It keeps its ledger, and stays paused, for a year. Returns whether it had slots before.
local function schedule_retire(s, job)
  local slot, due, rev, rules = string.match(read(s.slots, job) or '', '^(%S+) (%S+) (%S+) ?(%S*)')
  if not slot or slot == '-1' and due ~= NEVER then return false end
  local words = rev .. ' ' .. (rules == '' and '-' or rules) .. ' retired ' .. slot .. ' ' .. int(now)
  write(s.slots, job, '-1 ' .. int(now + LIMIT_MS) .. ' ' .. words)
  enter(s.dues, job, now + LIMIT_MS)
  return true
end

-- Of a retired job the first slot that was not fired; -1: it had none. nil: it is not retired.
local function schedule_retired(place)
  return string.sub(place, 1, 3) == '-1 ' and tonumber(string.match(place, ' retired (%S+) %d+$')) or nil
end

-- SLOT -1 and DUE NEVER: it never has one, and is not forgotten. A paused job stays paused.
local function schedule_place(s, job, slot, due, words)
  if slot < 0 and due < tonumber(NEVER) then return schedule_end(s, job, words, ENDED_MS) end
  local paused = s.paused and schedule_until(s, job)
  local place = int(slot) .. ' ' .. (paused and NEVER or int(due)) .. ' ' .. words
  write(s.slots, job, place)
  enter(s.dues, job, paused and schedule_when(s, job, place) or due)
end

-- SET_BACK: the clock was set back since slots were placed; LOST: something was lost of what is known of the jobs; NO: all is well.
-- `epoch`: of the shard, which it has from its first job on; 0: none.
local function schedule_odd(s, epoch)
  if s.seen and s.seen > now + SET_BACK_MS then return RESULT.SET_BACK end
  if not s.seen and epoch > 0 then return RESULT.LOST end
  local jobs = redis.call('HLEN', s.defs[KEY])
  local placed = redis.call('HLEN', s.slots[KEY]) - (s.seen and 1 or 0)
  return (jobs ~= placed or jobs ~= redis.call('ZCARD', s.dues[KEY]) or jobs ~= redis.call('ZCARD', s.order[KEY])) and RESULT.LOST or RESULT.NO
end

-- When the first job comes due; nil: there is none.
local function schedule_first(s)
  return tonumber(redis.call('ZRANGE', s.dues[KEY], 0, 0, 'WITHSCORES')[2] or nil)
end

-- Whether to tell of a job that comes due at `soonest`. Whoever sleeps looks when the `first` one does, which may be hidden by one who has
-- looked before if it is about to.
local AWAKE_MS = 1000
local function schedule_wakes(first, soonest)
  return not first or first < now + AWAKE_MS or soonest < first
end
