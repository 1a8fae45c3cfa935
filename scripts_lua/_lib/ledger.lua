-- _lib/ledger: what became of each slot.
--
--   ledger  hash  TASK_ID -> JSON: state, and what is known of it; TASK_ID is JOB@SLOT_MS
--   order   zset  JOB \255 SLOT_MS, 15 digits, all of score 0: a job's slots in order
-- needs: _lib/lease

local function ledger_member(job, slot)
  return job .. '\255' .. string.format('%015.0f', slot)
end

-- Enter a slot, or its next state. Beyond `keep` entries the job's oldest goes, one for each that comes.
local function ledger_write(l, job, slot, entry, keep)
  local id = job .. '@' .. int(slot)
  redis.call('HSET', l.ledger, id, cjson.encode(entry))
  if redis.call('ZADD', l.order, 0, ledger_member(job, slot)) == 0 then return end
  local low, high = '[' .. job .. '\255', '(' .. job .. '\255\255'
  if redis.call('ZLEXCOUNT', l.order, low, high) <= keep then return end
  local oldest = redis.call('ZRANGEBYLEX', l.order, low, high, 'LIMIT', 0, 1)[1]
  redis.call('ZREM', l.order, oldest)
  redis.call('HDEL', l.ledger, job .. '@' .. int(tonumber(string.sub(oldest, #job + 2))))
end

-- Add to an entry that is still there; what the ledger no longer keeps stays forgotten.
local function ledger_update(l, id, changes)
  local value = redis.call('HGET', l.ledger, id)
  if not value then return end
  local entry = cjson.decode(value)
  for name, change in pairs(changes) do entry[name] = change end
  redis.call('HSET', l.ledger, id, cjson.encode(entry))
end

-- Slots that came due and were not fired, as one entry under the first of them. `count` -1: too many to count.
local function ledger_missed(l, job, first, last, count, reason, keep)
  ledger_write(l, job, first, {state = 'missed', last = last, count = count, at = now, reason = reason}, keep)
end
