-- job/delete: forget a job, its slot and, up to `limit` entries at a time, its ledger, with the tasks of it that wait. One that runs goes on.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28..31] of _lib/schedule
-- KEYS[32] job:paused  hash
-- KEYS[33] job:changes  hash
-- KEYS[34] job:origin  zset    see _lib/origin
-- KEYS[35] backfill     hash
-- KEYS[36] backfill:due  zset
-- KEYS[37] job:tag      zset  see _lib/tags
-- ARGV[1]  job        str
-- ARGV[2]  limit      int
-- ARGV[3]  call       id    of this call; the same again is the same call, repeated
-- ARGV[4]  by         str
--
-- Returns  {existed, more}  more is 1 when ledger entries are left: ask again
-- Under OOM: runs.
--
-- Asked again, it leaves a job alone that was declared by that name since.
-- include: _lib/removal

local job, limit = ARGV[1], tonumber(ARGV[2])
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], {job}, KEYS[32])
local owners, existed, said = index(KEYS[34]), read(s.defs, job), reply_of(q.replies, ARGV[3])
if existed and said then return {1, 0} end
s.changes, s.backfills, s.filling, s.tags = page(KEYS[33]), page(KEYS[35]), index(KEYS[36]), tags_index(KEYS[37], KEYS[28])
job_remove(s, owners, job, ARGV[4])
if existed then write(q.replies, ARGV[3], '1') end
local gone = job_clear(owners, job, limit)
return {(existed or said) and 1 or 0, gone == limit and 1 or 0}
