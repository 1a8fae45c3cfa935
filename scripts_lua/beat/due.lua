-- beat/due: up to `limit` jobs that are due, hidden from the others for a moment, so that instances share a burst.
--
-- KEYS[1] job:due   zset
-- KEYS[2] job:slot  hash    job -> "SLOT DUE REV"
-- KEYS[3] epoch     string
-- ARGV[1] limit     int
-- ARGV[2] hide_ms   int     if the caller dies before it fires them, they come back after this time
--
-- Returns  {now_ms, epoch, next_due_ms, job, slot, job, slot, ...}  slot as job:slot has it; next_due_ms: of the first that is not due;
-- 0: there is none.
--          epoch 0: the store was emptied
--
-- Hiding only saves work: it is beat/fire that decides who fires.
-- include: _lib/lease

local dues, slots = KEYS[1], KEYS[2]
local due = redis.call('ZRANGEBYSCORE', dues, '-inf', int(now), 'LIMIT', 0, ARGV[1])
local following = redis.call('ZRANGE', dues, #due, #due, 'WITHSCORES')[2]
local out = {now, tonumber(redis.call('GET', KEYS[3]) or '0') or 0, tonumber(following or '0')}
for _, job in ipairs(due) do
  local slot = redis.call('HGET', slots, job)
  if slot then
    redis.call('ZADD', dues, int(now + tonumber(ARGV[2])), job)
    out[#out + 1] = job
    out[#out + 1] = slot
  else
    redis.call('ZREM', dues, job)
  end
end
return out
