-- backfill/control: pause a job's backfill, resume it, or end it. What it has fired goes on.
--
-- KEYS[1] backfill      hash     see _lib/backfill
-- KEYS[2] backfill:due  zset
-- KEYS[3] job:changes   hash     see _lib/pause
-- KEYS[4] bell          channel
-- KEYS[5] reply:0       hash     see _lib/reply
-- KEYS[6] reply:1       hash
-- KEYS[7] reply:2       hash
-- ARGV[1] job   str
-- ARGV[2] what  str  the STATE that it is to have: running, paused or cancelled
-- ARGV[3] by    str
-- ARGV[4] why   str
-- ARGV[5] call  id   of this call; the same again is the same call, repeated
--
-- Returns  DONE      by this call
--          NO        it had that state before
--          FINISHED  it has ended
--          UNKNOWN   there is none
-- Under OOM: runs.
-- include: _lib/backfill _lib/pause _lib/reply _lib/messages

return answer(function()
  local job, what, call = ARGV[1], ARGV[2], ARGV[5]
  local backfills, replies = page(KEYS[1]), join(reply_table(KEYS[5], KEYS[6], KEYS[7]), reply_close)
  local said = reply_of(replies, call)
  if said then return tonumber(said) end
  local line = read(backfills, job)
  if not line then return RESULT.UNKNOWN end
  local b = backfill_parse(backfills, job, line)
  if b.state == what then return RESULT.NO end
  if b.state ~= 'running' and b.state ~= 'paused' then return RESULT.FINISHED end
  b.state, b.next, b.row = what, 0, 0
  if what == 'cancelled' then b.ended = now end
  write(backfills, job, backfill_text(b))
  enter(index(KEYS[2]), job, now)
  local word = what == 'running' and 'resume_backfill' or what == 'paused' and 'pause_backfill' or 'cancel_backfill'
  change_note(page(KEYS[3]), job, change_text(word, now, 0, ARGV[3], ARGV[4]))
  say(KEYS[4], message_backfill())
  write(replies, call, int(RESULT.DONE))
  return RESULT.DONE
end)
