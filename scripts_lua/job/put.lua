-- job/put: declare jobs: new ones begin with the slot given, known ones keep their slot unless the trigger changed.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28..31] of _lib/schedule
-- KEYS[32] epoch       string  when this shard was first written to
-- KEYS[33] job:paused  hash    see _lib/pause
-- KEYS[34] job:origin  zset    see _lib/origin
-- KEYS[35] job:changes  hash    see _lib/pause
-- KEYS[36] version     string  see _lib/version
-- KEYS[37] job:tag     zset    see _lib/tags
-- ARGV[1]  job         str
-- ARGV[2]  rev         str     TRIGGER.REST, digests of the definition's parts
-- ARGV[3]  definition  json    with its origin, and the version of the code that declares it
-- ARGV[4]  slot        int     ms; the first slot after now; -1: none
-- ARGV[5]  due         int     ms; slot plus jitter
-- ARGV[6]  since       int     ms; this instance last saw the job then, and the store has been emptied since; 0: no
-- ARGV[7]  keep        str     how its ledger keeps, see _lib/ledger
-- ARGV[8]  rules       str     version of the time zones' rules by which the slot was reckoned
-- ARGV[9]  reads       int     the version of definitions that the caller reads
-- ARGV[10] limit       int     after so many slots that were fired it has ended; 0: never
-- ARGV[11] version     str     of the code, as beat/heartbeat takes it; empty: it is put at run time
-- ARGV[12] by          str     who declares it
-- Batch: ARGV[1..12] repeat, one group a call, at most 128 a run.
--
-- Returns  {code, epoch, stands, now_ms}  code: NEW, CHANGED, NO (as it was), ANOTHERS or STALE (another origin, a newer version of the code
--                                         has it: it stays as it is) or TOO_LATE: the slot no longer lies after now. stands: as job:slot
--                                         has it, if that is after now and not the slot given; of ANOTHERS: whose it is; else empty
--
-- After FLUSHALL the first slot lies after now, whatever an instance remembers: another may have fired the one before.
-- What came due in between goes into the ledger as unknown.
-- A definition that needs a newer version than the caller's stays as it is, whatever the caller declares: it begins with `"needs"`.
-- So does that of another origin. One that names none is anybody's.
-- include: _lib/declare _lib/messages

local jobs = column(12, 1)
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], jobs, KEYS[33])
local owners, first, soonest = index(KEYS[34]), schedule_first(s), math.huge
s.changes, s.versions, s.tags = page(KEYS[35]), versions_read(KEYS[36]), tags_index(KEYS[37], KEYS[28])
declare_gather(s, jobs)
local epoch, changed = declare_epoch(KEYS[32]), not s.seen

local out = each(12, function(i)
  local job, rev, definition, slot, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  s.version = version_said(s.versions, ARGV[i + 10])
  local origin = origin_of(definition)
  local refused, owned = declare_refused(s, job, rev, origin, slot, tonumber(ARGV[i + 8]), false)
  if refused then return {refused == RESULT.NEWER and RESULT.NO or refused, epoch, refused == RESULT.ANOTHERS and owned or '', now} end
  local since, keep, limit = tonumber(ARGV[i + 5]), ARGV[i + 6], tonumber(ARGV[i + 9])
  local code, touched, astray = declare(s, owners, origin, job, rev, definition, slot, due, since, keep, ARGV[i + 7], limit, ARGV[i + 11])
  changed, soonest = changed or touched, math.min(soonest, read(s.dues, job) or soonest)
  return {code, epoch, astray and read(s.slots, job) or '', now}
end)
if s.versions.changed then versions_write(s.versions) end
if changed then
  schedule_see(s)
  if schedule_wakes(first, soonest) then say(q.bell, message_job()) end
end
return out
