-- beat/due: up to `limit` jobs that are due, hidden from the others for a moment, so that instances share a burst.
--
-- KEYS[1] job           hash
-- KEYS[2] job:order     zset
-- KEYS[3] job:slot      hash    job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[4] job:due       zset
-- KEYS[5] job:open      hash
-- KEYS[6] ledger        hash
-- KEYS[7] ledger:order  zset
-- KEYS[8] epoch         string
-- ARGV[1] limit         int
-- ARGV[2] hide_ms       int     if the caller dies before it fires them, they come back after this time
-- ARGV[3] seen          str     what the call before returned as such; empty: there was none
--
-- Returns  {now_ms, epoch, next_due_ms, seen, odd, *jobs}  jobs: job, slot, job, slot, ... as job:slot has them; next_due_ms: of the first
-- that is not due; 0: there is none. seen: until when slots were handed out, for the next call.
--          epoch 0: the store was emptied
--          odd NO: all is well; LOST or SET_BACK: see _lib/results and job/walk
--
-- Hiding only saves work: it is beat/fire that decides who fires. A store that knows less than its caller has lost what came
-- after: a snapshot, or a failover. What was due by then may have been fired.
-- include: _lib/lease1 _lib/ledger _lib/schedule

local s = {defs = KEYS[1], order = KEYS[2], slots = KEYS[3], dues = KEYS[4]}
local l = {ledger = KEYS[6], order = KEYS[7]}
schedule_seen(s)
local known, settled = string.match(ARGV[3], '^(%d+) (%d+)$')
known = tonumber(known)
if known and s.seen and s.seen < known and known <= now and s.settled == tonumber(settled) then
  s.unsure = math.max(s.unsure, known)
  redis.call('HSET', s.slots, '', int(s.seen) .. ' ' .. int(s.unsure) .. ' ' .. int(s.settled))
end

-- It ended long ago. Not while a task of it waits or runs.
local function forget(job)
  local members = redis.call('ZRANGEBYLEX', l.order, '[' .. job .. '\255', '(' .. job .. '\255\255', 'LIMIT', 0, 100)
  if redis.call('HEXISTS', KEYS[5], job) == 1 or #members == 100 then
    redis.call('ZADD', s.dues, int(now + (#members == 100 and 1000 or 3600000)), job)
  else
    redis.call('HDEL', s.defs, job)
    redis.call('ZREM', s.order, job)
    redis.call('HDEL', s.slots, job)
    redis.call('ZREM', s.dues, job)
  end
  if redis.call('HEXISTS', KEYS[5], job) == 0 then ledger_drop(l, job, members) end
end

local due = redis.call('ZRANGEBYSCORE', s.dues, '-inf', int(now), 'LIMIT', 0, ARGV[1])
local following = redis.call('ZRANGE', s.dues, #due, #due, 'WITHSCORES')[2]
local rows, forgotten = {}, 0
for _, job in ipairs(due) do
  local slot = redis.call('HGET', s.slots, job)
  if slot and string.sub(slot, 1, 3) == '-1 ' then
    if forgotten < 10 then forget(job) else redis.call('ZADD', s.dues, int(now + 1000), job) end
    forgotten = forgotten + 1
  elseif slot then
    redis.call('ZADD', s.dues, int(now + tonumber(ARGV[2])), job)
    rows[#rows + 1] = job
    rows[#rows + 1] = slot
  else
    redis.call('ZREM', s.dues, job)
  end
end
local epoch = tonumber(redis.call('GET', KEYS[8]) or '0') or 0
local odd = schedule_odd(s, epoch)
if #rows > 0 then schedule_see(s) end
local out = {now, epoch, tonumber(following or '0'),
  s.seen and int(s.seen) .. ' ' .. int(s.settled) or '', odd}
for _, word in ipairs(rows) do out[#out + 1] = word end
return out
