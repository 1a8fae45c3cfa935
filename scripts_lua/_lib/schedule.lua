-- _lib/schedule: where the jobs stand.
--
--   slots  hash  JOB -> "SLOT DUE REV RULES": its next slot; SLOT -1: it has ended, and is forgotten at DUE. '' -> "SEEN UNSURE SETTLED"
--   dues   zset  JOB by when to look at it next
-- Every job is in both, as it is in `defs` and in `order`: by that a loss shows. RULES: the version of the time zones' rules by which
-- the slot was reckoned. SEEN: the latest time at which slots were placed or handed out; it lies ahead when the clock was set back.
-- UNSURE: the store was seen in a later state before, and slots up to that time may have been fired by then. SETTLED: when SEEN was set
-- back itself.
-- needs: _lib/lease1 _lib/ledger _lib/results

local ENDED_MS = 7 * 86400 * 1000  -- a job that has ended is kept as long as a dead task
local UNKNOWN = 'unknown: the store went back to an earlier state, and it may have run'

-- SEEN and UNSURE; SEEN nil: the key was lost, or no job was ever placed.
local function schedule_seen(s)
  local seen, unsure, settled = string.match(redis.call('HGET', s.slots, '') or '', '^(%d+) (%d+) (%d+)$')
  s.seen, s.unsure, s.settled = tonumber(seen), tonumber(unsure) or 0, tonumber(settled) or 0
  return s
end

local function schedule_see(s)
  if s.seen and now <= s.seen then return end
  s.seen = now
  redis.call('HSET', s.slots, '', int(s.seen) .. ' ' .. int(s.unsure) .. ' ' .. int(s.settled))
end

-- `words`: "REV RULES".
local function schedule_place(s, job, slot, due, words)
  if slot < 0 then due = now + ENDED_MS end
  redis.call('HSET', s.slots, job, int(slot) .. ' ' .. int(due) .. ' ' .. words)
  redis.call('ZADD', s.dues, int(due), job)
end

-- SET_BACK, LOST or, if all is well, NO. `epoch`: of the shard, which it has from its first job on; 0: none.
local function schedule_odd(s, epoch)
  if s.seen and s.seen > now + SET_BACK_MS then return RESULT.SET_BACK end
  if not s.seen and epoch > 0 then return RESULT.LOST end
  local jobs = redis.call('HLEN', s.defs)
  local placed = redis.call('HLEN', s.slots) - (s.seen and 1 or 0)
  return (jobs ~= placed or jobs ~= redis.call('ZCARD', s.dues) or jobs ~= redis.call('ZCARD', s.order)) and RESULT.LOST or RESULT.NO
end

-- What happened to a job besides its slots: under the moment itself, or the next that the ledger has free.
local function schedule_tell(l, job, reason, keep)
  for at = now, now + 100 do
    if redis.call('HEXISTS', l.ledger, job .. '@' .. int(at)) == 0 then
      return ledger_write(l, job, at, '{"state":"anchored","at":' .. int(now) .. ',"reason":' .. quote(reason) .. '}', keep)
    end
  end
end

-- Its slot was lost, and with it what came due since the last that the ledger knows.
local function schedule_lost(l, job, keep)
  local last = redis.call('ZREVRANGEBYLEX', l.order, '(' .. ledger_member(job, now), '[' .. job .. '\255', 'LIMIT', 0, 1)[1]
  local first = last and tonumber(string.sub(last, #job + 2)) + 1 or now
  ledger_missed(l, job, math.min(first, now), now, -1, 'unknown: its next slot was lost from the store', keep)
end
