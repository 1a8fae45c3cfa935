-- backfill/start: begin a backfill of a job, unless one of it has not ended.
--
-- KEYS[1] job           hash     job -> "REV JSON"
-- KEYS[2] backfill      hash     see _lib/backfill
-- KEYS[3] backfill:due  zset
-- KEYS[4] job:counts    hash     also what its ledger lacks, see _lib/past
-- KEYS[5] job:changes   hash     see _lib/pause
-- KEYS[6] bell          channel
-- KEYS[7] ledger:order  zset     see _lib/ledger
-- ARGV[1]  job      str
-- ARGV[2]  rev      str   of the definition by which its slots were counted
-- ARGV[3]  start    int   ms; the slots from then on
-- ARGV[4]  end      int   ms; and before then, which must not lie ahead
-- ARGV[5]  total    int   so many
-- ARGV[6]  every    int   us; so far apart they are fired; 0: no matter
-- ARGV[7]  unknown  int   1: also those of which nobody knows whether they ran
-- ARGV[8]  id       id    of this call; the same again is the same call, repeated
-- ARGV[9]  by       str
-- ARGV[10] why      str
--
-- Returns  {said, line, now_ms}  line: the backfill as it stands now, that of another call if it is BUSY
--          said DONE: it has begun; BUSY: there is one that has not ended; UNKNOWN: no such job; TOO_LATE: the job has another definition, or
--          that time is still to come
-- include: _lib/backfill _lib/pause _lib/past _lib/messages

return answer(function()
  local job, start, ends = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
  local backfills = page(KEYS[2])
  local definition, line = read(page(KEYS[1]), job), read(backfills, job)
  if not definition then return {RESULT.UNKNOWN, '', now} end
  local before = line and backfill_parse(backfills, job, line)
  if before and before.id == ARGV[8] then return {RESULT.DONE, line, now} end
  if before and not backfill_over(before) then return {RESULT.BUSY, line, now} end
  if string.match(definition, '^%S+') ~= ARGV[2] or ends > now then return {RESULT.TOO_LATE, '', now} end
  local counts = page(KEYS[4])
  local lacks = past_parse(read(counts, job .. '\255'))
  past_look(lacks, read(counts, job), redis.call('ZLEXCOUNT', KEYS[7], '[' .. job .. '\255', '(' .. job .. '\255\255'), now)
  lacks.from, lacks.to = start, start
  write(counts, job .. '\255', past_text(lacks))
  line = backfill_text({
    id = ARGV[8], state = 'running', from = start, to = ends, at = start, next = 0, every = ARGV[6], unknown = ARGV[7], since = lacks.since, past = lacks.past,
    began = now, ended = 0, total = ARGV[5], fired = 0, done = 0, failed = 0, cancelled = 0, missed = 0, known = 0, excluded = 0, left = 0, row = 0,
    by = ARGV[9], why = ARGV[10], open = {},
  })
  write(backfills, job, line)
  enter(index(KEYS[3]), job, now)
  change_note(page(KEYS[5]), job, change_text('backfill', now, 0, ARGV[9], ARGV[10]))
  say(KEYS[6], message_backfill())
  return {RESULT.DONE, line, now}
end)
