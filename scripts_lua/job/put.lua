-- job/put: declare jobs: new ones begin with the slot given, known ones keep their slot unless the trigger changed.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job         hash    job -> "REV JSON"
-- KEYS[29] job:order   zset
-- KEYS[30] job:slot    hash    job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[31] job:due     zset
-- KEYS[32] epoch       string  when this shard was first written to
-- KEYS[33] job:paused  hash    see _lib/pause
-- ARGV[1]  job         str
-- ARGV[2]  rev         str     TRIGGER.REST, digests of the definition's parts
-- ARGV[3]  definition  json
-- ARGV[4]  slot        int     ms; the first slot after now; -1: none
-- ARGV[5]  due         int     ms; slot plus jitter
-- ARGV[6]  since       int     ms; this instance last saw the job then, and the store has been emptied since; 0: no
-- ARGV[7]  keep        int     ledger entries to keep
-- ARGV[8]  rules       str     version of the time zones' rules by which the slot was reckoned
-- ARGV[9]  reads       int     the version of definitions that the caller reads
-- ARGV[10] limit       int     after so many slots that were fired it has ended; 0: never
-- Batch: ARGV[1..10] repeat, one group a call, at most 128 a run.
--
-- Returns  {code, epoch, stands, now_ms}  code: NEW, CHANGED, NO (as it was) or TOO_LATE: the slot no longer lies after now.
--                                         stands: as job:slot has it, if that is after now and not the slot given; else empty
--
-- A slot that has come due while the call was on its way may have been fired by the definition that is replaced, or before a
-- FLUSHALL: it must not begin with that one.
-- After FLUSHALL the first slot lies after now, whatever an instance remembers: another may have fired the one before.
-- What came due in between goes into the ledger as unknown.
-- A paused job stays paused. One that is new is not, whatever is left of an earlier one of its name.
-- A definition that needs a newer version than the caller's stays as it is, whatever the caller declares: it begins with `"needs"`.
-- include: _lib/ledger _lib/schedule _lib/messages

local AWAKE_MS = 1000
local jobs = column(10, 1)
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], jobs, KEYS[33])
gather(s.defs, jobs)
gather(s.order, jobs)
gather(s.dues, jobs)
gather(s.paused, jobs)
local epoch = tonumber(redis.call('GET', KEYS[32]) or 'none')
if not epoch then
  epoch = time[1] * 1000000 + time[2]
  redis.call('SET', KEYS[32], int(epoch))
end

local first = tonumber(redis.call('ZRANGE', s.dues[KEY], 0, 0, 'WITHSCORES')[2] or nil)
local soonest = math.huge
local changed = not s.seen
local out = each(10, function(i)
  local job, rev, slot, due, since = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local words, keep = rev .. ' ' .. ARGV[i + 7], tonumber(ARGV[i + 6])
  local line, old, code = read(s.defs, job) or '', read(s.slots, job), RESULT.NO
  local known, needs = string.match(line, '^(%S+) '), tonumber(string.match(line, '^%S+ {"needs":(%d+)'))
  if needs and needs > tonumber(ARGV[i + 8]) then return {RESULT.NO, epoch, '', now} end
  local keeps = old and string.match(old, '^%S+ %S+ ([^. ]+)') == string.match(rev, '^[^.]+')
  local was = old and tonumber(string.match(old, '^%S+'))
  local astray = keeps and was > now and was ~= slot
  if (not keeps or astray) and slot >= 0 and slot <= now then return {RESULT.TOO_LATE, epoch, '', now} end
  if known ~= rev then
    changed = true
    write(s.defs, job, rev .. ' ' .. ARGV[i + 2])
    code = known and RESULT.CHANGED or RESULT.NEW
    if keeps then
      write(s.slots, job, (string.gsub(old, '^(%S+ %S+) %S+', '%1 ' .. rev)))
    elseif not known then
      if not old and read(s.paused, job) then erase(s.paused, job) end
      schedule_place(s, job, slot, due, words)
      if since > 0 then ledger_missed(job, since, now, -1, REASON.EMPTIED, '', keep) end
    elseif old then
      if was >= 0 and was <= now and schedule_until(s, job) then
        ledger_several(job, 'skipped', was, now, -1, REASON.PAUSED, 'somebody', keep)
      elseif was >= 0 and was <= now then
        ledger_missed(job, was, was, 1, REASON.TRIGGER_CHANGED, '', keep)
      end
      schedule_place(s, job, slot, due, words)
    end
  end
  if not read(s.order, job) then
    changed = true
    enter(s.order, job, 0)
  end
  if known and not old then
    changed = true
    schedule_place(s, job, slot, due, words)
    if slot >= 0 then ledger_lost(job, keep) end
  elseif keeps and not read(s.dues, job) then
    changed = true
    enter(s.dues, job, schedule_when(s, job, old))
  end
  if counted_out(job, tonumber(ARGV[i + 9])) then schedule_end(s, job, words, LIMIT_MS) end
  soonest = math.min(soonest, read(s.dues, job) or soonest)
  return {code, epoch, astray and read(s.slots, job) or '', now}
end)
if changed then schedule_see(s) end
-- Whoever sleeps looks when the first comes due. What is about to come due may be hidden by one who has looked before.
if changed and (not first or first < now + AWAKE_MS or soonest < first) then say(q.bell, message_job()) end
return out
