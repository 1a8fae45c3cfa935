-- job/apply: declare jobs of an origin, and remove what it has besides them: all that was asked for, or nothing.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28..31] of _lib/schedule
-- KEYS[32] epoch        string  when this shard was first written to
-- KEYS[33] job:paused   hash    see _lib/pause
-- KEYS[34] job:changes  hash
-- KEYS[35] job:origin   zset    see _lib/origin
-- KEYS[36] job:applied  zset    PX; ORIGIN by the number of its latest apply
-- KEYS[37] backfill     hash
-- KEYS[38] backfill:due  zset
-- KEYS[39] job:tag      zset    see _lib/tags
-- ARGV[1]  origin    str
-- ARGV[2]  jobs      list  seven words a job: JOB REV DEFINITION SLOT DUE KEEP LIMIT, as job/put has them; DEFINITION empty: it is only looked at
-- ARGV[3]  rules     str   version of the time zones' rules by which the slots were reckoned
-- ARGV[4]  reads     int   the version of definitions that the caller reads
-- ARGV[5]  expected  str   the rev that each job must have; empty: none may be there; "*": whatever it is
-- ARGV[6]  take      int   1: those of other origins as well
-- ARGV[7]  prune     int   remove at most so many jobs of the origin that are none of these
-- ARGV[8]  after     str   and lie behind this name, in lexical order; empty: from the first
-- ARGV[9]  upto      str   and not behind this one; empty: to the last
-- ARGV[10] number    int   of the apply that this is a step of: a fence; 0: mint it; -1: it is no apply
-- ARGV[11] dry       int   1: only say what would be done
-- ARGV[12] call      id    of this call; the same again is the same call, repeated
-- ARGV[13] by        str
--
-- Returns  {said, number, now_ms, codes, words, cursor}  codes: of each job NEW, CHANGED or NO (as it was), or why it can't be declared: ANOTHERS,
--                                         NEWER (it needs a newer version), STALE (it has not that rev), TOO_LATE (its slot no longer lies
--                                         after now; or it was only to be looked at, and is not so: ask again with its definition)
--          said DONE      so it is; words: the names of the jobs that were removed
--               WAITING   so it is, and more are to be removed: ask again with cursor for `after`
--               NO        nothing was done, for one can't be declared; words: of each job, whose it is, or its rev where that is not as expected
--               TOO_LATE  nothing was done: a later apply of this origin has begun
--
-- An apply of many jobs is made of many steps, each for a stretch of names. Of two at a time the later one counts, whose number is greater.
-- What is removed leaves its ledger to job/forget.
-- include: _lib/applying _lib/removal _lib/messages

local origin, dry, call = ARGV[1], ARGV[11] == '1', ARGV[12]
local said = reply_of(q.replies, call)
if said then return apply_answered(said) end

local given = apply_given(ARGV[2])
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], given.jobs, KEYS[33])
local owners, epoch_key, applied = index(KEYS[35]), KEYS[32], KEYS[36]
s.changes, s.backfills, s.filling, s.tags = page(KEYS[34]), page(KEYS[37]), index(KEYS[38]), tags_index(KEYS[39], KEYS[28])
declare_gather(s, given.jobs)

return answer(function()
  local number = tonumber(ARGV[10])
  local latest = number >= 0 and tonumber(redis.call('ZSCORE', applied, origin) or 0)
  if number > 0 and latest > number then return {RESULT.TOO_LATE, number, now, {}, {}, ''} end
  local codes, words, refused = apply_codes(s, given, origin, ARGV[5], tonumber(ARGV[4]), ARGV[6] == '1', dry)
  if refused then return {RESULT.NO, number, now, codes, words, ''} end
  local gone, strange, cursor, more = apply_surplus(s, owners, given, origin, tonumber(ARGV[7]), ARGV[8], ARGV[9])
  local kind = more and RESULT.WAITING or RESULT.DONE
  if dry then return {kind, number, now, codes, gone, cursor} end

  if number == 0 then number = math.max(mint(q.fence), latest + 1) end
  if number > 0 then
    redis.call('ZADD', applied, int(number), origin)
    redis.call('ZREMRANGEBYSCORE', applied, '-inf', int((now - DAY_MS) * 1000))  -- none of these is still at it
    redis.call('PEXPIRE', applied, DAY_MS)
  end
  if given.jobs[1] then
    declare_epoch(epoch_key)
    local changed, first, soonest = not s.seen, schedule_first(s), math.huge
    for _, of in ipairs(given) do
      if of.definition ~= '' then
        local _, touched = declare(s, owners, origin, of.job, of.rev, of.definition, of.slot, of.due, 0, of.keep, ARGV[3], of.limit, ARGV[13])
        changed, soonest = changed or touched, math.min(soonest, read(s.dues, of.job) or soonest)
      end
      origin_passes(owners, of.job, nil, origin)  -- it may have been lost from there
    end
    if changed then
      schedule_see(s)
      if schedule_wakes(first, soonest) then say(q.bell, message_job()) end
    end
  end
  for _, job in ipairs(gone) do
    job_remove(s, owners, job, ARGV[13])
    enter(owners, '\255' .. job, 0)
  end
  for _, job in ipairs(strange) do leave(owners, origin_member(origin, job)) end
  write(q.replies, call, apply_answer(kind, number, codes, gone, cursor))
  return {kind, number, now, codes, gone, cursor}
end)
