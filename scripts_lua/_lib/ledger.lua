-- _lib/ledger: what became of each slot.
--
--   ledger  hash  TASK_ID -> JSON: state, and what is known of it; TASK_ID is JOB@SLOT_MS
--   order   zset  JOB \255 SLOT_MS, 15 digits, all of score 0: a job's slots in order
-- needs: _lib/lease1

local function ledger_member(job, slot)
  return job .. '\255' .. string.format('%015.0f', slot)
end

-- Text as JSON; an owner comes again and again.
local quoted = {}
local function quote(text)
  if not quoted[text] then quoted[text] = cjson.encode(text) end
  return quoted[text]
end

-- An entry, spelled out: cjson takes longer than all else that ends a task, and would round a fence.
local function ledger_entry(state, at, by, fence, attempt, started, ended, reason)
  return '{"state":"' .. state .. '","at":' .. int(at) .. (by and ',"by":' .. quote(by) or '')
    .. (fence and ',"fence":' .. int(fence) or '') .. (attempt and ',"attempt":' .. attempt or '')
    .. (started and started > 0 and ',"started":' .. int(started) or '') .. (ended and ',"ended":' .. int(ended) or '')
    .. (reason and ',"reason":' .. quote(reason) or '') .. '}'
end

-- Forget these of a job's entries.
local ledger_dropped  -- called with the id of each that is forgotten, by whoever keeps something as long
local function ledger_drop(l, job, members)
  for _, member in ipairs(members) do
    local id = job .. '@' .. int(tonumber(string.sub(member, #job + 2)))
    redis.call('ZREM', l.order, member)
    redis.call('HDEL', l.ledger, id)
    if ledger_dropped then ledger_dropped(id) end
  end
end

-- Enter a slot. What a clock that was set back has left ahead of now is not counted. Beyond `keep` entries the job's oldest go, every eighth time: counting costs more than writing.
local function ledger_write(l, job, slot, entry, keep)
  redis.call('HSET', l.ledger, job .. '@' .. int(slot), entry)
  if redis.call('ZADD', l.order, 0, ledger_member(job, slot)) == 0 or time[2] % 8 ~= 0 then return end
  local low, high = '[' .. job .. '\255', '[' .. ledger_member(job, math.max(slot, now))
  local surplus = redis.call('ZLEXCOUNT', l.order, low, high) - keep
  if surplus <= 0 then return end
  ledger_drop(l, job, redis.call('ZRANGEBYLEX', l.order, low, high, 'LIMIT', 0, math.min(surplus, 100)))
end

-- Replace an entry that is still there; what the ledger no longer keeps stays forgotten.
local function ledger_replace(l, id, entry)
  if redis.call('HEXISTS', l.ledger, id) == 1 then redis.call('HSET', l.ledger, id, entry) end
end

-- Slots that came due and were not fired, as one entry under the first of them. `count` -1: too many to count. What is known of
-- one of them stays: since the clock was set back they may have come due twice.
local function ledger_missed(l, job, first, last, count, reason, keep)
  while redis.call('HEXISTS', l.ledger, job .. '@' .. int(first)) == 1 do
    if first >= last or count == 1 then return end
    first = first + 1
  end
  ledger_write(l, job, first, '{"state":"missed","at":' .. int(now) .. ',"last":' .. int(last) .. ',"count":' .. count
    .. ',"reason":' .. quote(reason) .. '}', keep)
end
