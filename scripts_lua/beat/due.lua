-- beat/due: up to `limit` jobs that are due, hidden from the others for a moment, so that instances share a burst.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28..31] of _lib/schedule
-- KEYS[32] epoch      string
-- KEYS[33] job:paused   hash
-- KEYS[34] job:changes  hash
-- KEYS[35] job:origin  zset    see _lib/origin
-- KEYS[36] job:tag     zset    see _lib/tags
-- ARGV[1]  limit      int
-- ARGV[2]  hide_ms    int     if the caller dies before it fires them, they come back after this time
-- ARGV[3]  seen       str     what the call before returned as such; empty: there was none
--
-- Returns  {now_ms, epoch, next_due_ms, seen, odd, *jobs}  jobs: job, slot, job, slot, ... as job:slot has them; next_due_ms: of the first
-- that is not due; 0: there is none. seen: until when slots were handed out, for the next call.
--          epoch 0: the store was emptied
--          odd NO: all is well; LOST or SET_BACK: see _lib/results and job/walk
--
-- Hiding only saves work: it is beat/fire that decides who fires. A store that knows less than its caller has lost what came
-- after: a snapshot, or a failover. What was due by then may have been fired.
-- Rarely: ledger_drop log_drop counts_drop tags_index tags_pass
-- include: _lib/ledger _lib/pause _lib/origin _lib/tags

local limit, hide = tonumber(ARGV[1]), tonumber(ARGV[2])
local waiting = redis.call('ZRANGEBYSCORE', KEYS[31], '-inf', int(now), 'LIMIT', 0, limit)
local following = redis.call('ZRANGE', KEYS[31], #waiting, #waiting, 'WITHSCORES')[2]
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], waiting)
local known, settled = string.match(ARGV[3], '^(%d+) (%d+)$')
known = tonumber(known)
if known and s.seen and s.seen < known and known <= now and s.settled == tonumber(settled) then
  s.unsure = math.max(s.unsure, known)
  schedule_note(s)
end

local tags

-- It ended long ago. Not while a task of it waits or runs.
local function forget(job)
  local open = read(q.open, job)
  local members = range(q.order, '[' .. job .. '\255', '(' .. job .. '\255\255', 100)
  if open or #members == 100 then
    enter(s.dues, job, now + (#members == 100 and 1000 or 3600000))
  else
    tags = tags or tags_index(KEYS[36], KEYS[28])
    tags_pass(tags, job, read(s.defs, job), nil)
    origin_passes(index(KEYS[35]), job, origin_of(read(s.defs, job) or ''), nil)
    erase(s.defs, job)
    leave(s.order, job)
    erase(s.slots, job)
    leave(s.dues, job)
    counts_drop(job)
    pause_drop(page(KEYS[33]), page(KEYS[34]), job)
  end
  if not open then
    log_drop(job, members)
    ledger_drop(job, members)
  end
  return #members
end

local rows, forgotten = {}, 0
for _, job in ipairs(waiting) do
  local slot = read(s.slots, job)
  if slot and string.sub(slot, 1, 3) == '-1 ' then
    if forgotten < 100 then
      forgotten = forgotten + 10 + forget(job)
    else
      enter(s.dues, job, now + 1000)
    end
  elseif slot then
    enter(s.dues, job, now + hide)
    rows[#rows + 1] = job
    rows[#rows + 1] = slot
  else
    leave(s.dues, job)
  end
end
local epoch = tonumber(redis.call('GET', KEYS[32]) or '0') or 0
local odd = schedule_odd(s, epoch)
if #rows > 0 then schedule_see(s) end
local out = {now, epoch, tonumber(following or '0'), s.seen and int(s.seen) .. ' ' .. int(s.settled) or '', odd}
for _, word in ipairs(rows) do out[#out + 1] = word end
return out
