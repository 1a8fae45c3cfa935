-- job/put: declare jobs: new ones begin with the slot given, known ones keep their slot unless the trigger changed.
--
-- KEYS[1] job           hash    job -> "REV JSON"
-- KEYS[2] job:order     zset
-- KEYS[3] job:slot      hash    job -> "SLOT DUE REV"
-- KEYS[4] job:due       zset
-- KEYS[5] epoch         string  when this shard was first written to
-- KEYS[6] ledger        hash
-- KEYS[7] ledger:order  zset
-- KEYS[8] bell          channel  rung when a job may be due sooner than anybody was told
-- ARGV[1] job           str
-- ARGV[2] rev           str     TRIGGER.REST, digests of the definition's parts
-- ARGV[3] definition    json
-- ARGV[4] slot          int     ms; the first slot after now; -1: none
-- ARGV[5] due           int     ms; slot plus jitter
-- ARGV[6] since         int     ms; this instance last saw the job then, and the store has been emptied since; 0: no
-- ARGV[7] keep          int     ledger entries to keep
-- Batch: ARGV[1..7] repeat, one group a call, at most 100 a run.
--
-- Returns  {code, epoch}  code 2: new; 1: changed; 0: as it was; -1: nothing is done, the slot no longer lies after now
--
-- A slot that has come due while the call was on its way may have been fired by the definition that is replaced, or before a
-- FLUSHALL: it must not begin with that one.
-- After FLUSHALL the first slot lies after now, whatever an instance remembers: another may have fired the one before.
-- What came due in between goes into the ledger as unknown.
-- include: _lib/lease _lib/ledger

local defs, order, slots, dues = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local l = {ledger = KEYS[6], order = KEYS[7]}
if not tonumber(redis.call('GET', KEYS[5]) or 'none') then redis.call('SET', KEYS[5], int(time[1] * 1000000 + time[2])) end
local epoch = tonumber(redis.call('GET', KEYS[5]))

local function place(job, slot, due, rev)
  if slot < 0 then
    redis.call('HDEL', slots, job)
    redis.call('ZREM', dues, job)
  else
    redis.call('HSET', slots, job, int(slot) .. ' ' .. int(due) .. ' ' .. rev)
    redis.call('ZADD', dues, int(due), job)
  end
end

local out, changed = {}, false
for i = 1, #ARGV, 7 do
  local job, rev, slot, due, since = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local known = redis.call('HGET', defs, job)
  known = known and string.match(known, '^(%S+) ')
  local code = 0
  local old = redis.call('HGET', slots, job)
  local keeps = known and old and string.match(known, '^[^.]+') == string.match(rev, '^[^.]+')
  if known ~= rev and not keeps and slot >= 0 and slot <= now then
    code = -1
  elseif known ~= rev then
    changed = true
    redis.call('HSET', defs, job, rev .. ' ' .. ARGV[i + 2])
    if not known then
      code = 2
      redis.call('ZADD', order, 0, job)
      place(job, slot, due, rev)
      if since > 0 then
        ledger_missed(l, job, since, now, -1, 'unknown: the store was emptied in this time', tonumber(ARGV[i + 6]))
      end
    elseif keeps then
      code = 1
      redis.call('HSET', slots, job, (string.gsub(old, '^(%S+ %S+) %S+', '%1 ' .. rev)))
    else
      code = 1
      local was = old and tonumber(string.match(old, '^%S+'))
      if was and was <= now then
        ledger_missed(l, job, was, was, 1, 'the trigger was changed before it was fired', tonumber(ARGV[i + 6]))
      end
      place(job, slot, due, rev)
    end
  end
  if code == 0 and slot > now and not old then
    changed = true
    place(job, slot, due, rev)  -- its slot was evicted, or deleted by hand
  elseif code == 0 and old and not redis.call('ZSCORE', dues, job) then
    changed = true
    redis.call('ZADD', dues, string.match(old, '^%S+ (%S+)'), job)
  end
  out[#out + 1] = {code, epoch}
end
if changed then redis.call('PUBLISH', KEYS[8], 'job') end
return out
