-- job/put: declare jobs: new ones begin with the slot given, known ones keep their slot unless the trigger changed.
--
-- KEYS[1] job           hash    job -> "REV JSON"
-- KEYS[2] job:order     zset
-- KEYS[3] job:slot      hash    job -> "SLOT DUE REV RULES", see _lib/schedule
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
-- ARGV[8] rules         str     version of the time zones' rules by which the slot was reckoned
-- Batch: ARGV[1..8] repeat, one group a call, at most 100 a run.
--
-- Returns  {code, epoch, stands, now_ms}  code: NEW, CHANGED, NO (as it was) or TOO_LATE: the slot no longer lies after now.
--                                         stands: as job:slot has it, if that is after now and not the slot given; else empty
--
-- A slot that has come due while the call was on its way may have been fired by the definition that is replaced, or before a
-- FLUSHALL: it must not begin with that one.
-- After FLUSHALL the first slot lies after now, whatever an instance remembers: another may have fired the one before.
-- What came due in between goes into the ledger as unknown.
-- include: _lib/lease1 _lib/ledger _lib/schedule _lib/messages

local defs, order, slots, dues = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local s = schedule_seen({slots = slots, dues = dues})
local l = {ledger = KEYS[6], order = KEYS[7]}
if not tonumber(redis.call('GET', KEYS[5]) or 'none') then redis.call('SET', KEYS[5], int(time[1] * 1000000 + time[2])) end
local epoch = tonumber(redis.call('GET', KEYS[5]))

local out, changed = {}, false
for i = 1, #ARGV, 8 do
  local job, rev, slot, due, since = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local words, keep = rev .. ' ' .. ARGV[i + 7], tonumber(ARGV[i + 6])
  local known = redis.call('HGET', defs, job)
  known = known and string.match(known, '^(%S+) ')
  local code = RESULT.NO
  local old = redis.call('HGET', slots, job)
  local keeps = old and string.match(old, '^%S+ %S+ ([^. ]+)') == string.match(rev, '^[^.]+')
  local was = old and tonumber(string.match(old, '^%S+'))
  local astray = keeps and was > now and was ~= slot
  if (not keeps or astray) and slot >= 0 and slot <= now then
    code = RESULT.TOO_LATE
  elseif known ~= rev then
    changed = true
    redis.call('HSET', defs, job, rev .. ' ' .. ARGV[i + 2])
    code = known and RESULT.CHANGED or RESULT.NEW
    if keeps then
      redis.call('HSET', slots, job, (string.gsub(old, '^(%S+ %S+) %S+', '%1 ' .. rev)))
    elseif not known then
      schedule_place(s, job, slot, due, words)
      if since > 0 then
        ledger_missed(l, job, since, now, -1, 'unknown: the store was emptied in this time', keep)
      end
    elseif old then
      if was >= 0 and was <= now then
        ledger_missed(l, job, was, was, 1, 'the trigger was changed before it was fired', keep)
      end
      schedule_place(s, job, slot, due, words)
    end
  end
  if code ~= RESULT.TOO_LATE then
    if redis.call('ZADD', order, 0, job) == 1 then changed = true end
    if known and not old then
      changed = true
      schedule_place(s, job, slot, due, words)
      if slot >= 0 then schedule_lost(l, job, keep) end
    elseif keeps and not redis.call('ZSCORE', dues, job) then
      changed = true
      redis.call('ZADD', dues, string.match(old, '^%S+ (%S+)'), job)
    end
  end
  out[#out + 1] = {code, epoch, code ~= RESULT.TOO_LATE and astray and redis.call('HGET', slots, job) or '', now}
end
if changed or not s.seen then schedule_see(s) end
if changed then redis.call('PUBLISH', KEYS[8], message_job()) end
return out
