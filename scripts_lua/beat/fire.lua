-- beat/fire: for each job: if its slot is still the expected one and has come due, create the task and move on to the next.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28..31] of _lib/schedule
-- KEYS[32] calendar   hash  see _lib/calendar
-- ARGV[1]  job        str
-- ARGV[2]  expected   str   what the caller saw in job:slot
-- ARGV[3]  slot       int   ms; the one to fire, the latest that came due
-- ARGV[4]  missed     str   "FIRST LAST COUNT": those that came due before it and are not fired; COUNT -1: too many to count; empty: none
-- ARGV[5]  next       str   what job:slot is to say; empty: the job has ended
-- ARGV[6]  record     text  of the task: "MAX JSON"
-- ARGV[7]  policies   str   of the job, "OVERLAP WINDOW LIMIT BUFFER CAP KEEP", the same for many jobs: see policies_of
-- ARGV[8]  owner      str   of the attempt
-- ARGV[9]  call       id    of this call; the same again is the same call, repeated
-- ARGV[10] lease_ms   int   start it here at once, under such a lease; 0: let any worker claim it
-- ARGV[11] calendars  str   by which it excludes, as the caller has read them: "NAME REV NAME REV"
-- ARGV[12] excluded   str   empty: they do not exclude the slot; else "LAST COUNT CALENDAR ENTRY": up to which one of its day, and how many
-- Batch: ARGV[1..12] repeat, one group a call, at most 64 a run.
--
-- Returns  {fired, fence, expires_at_ms, now_ms}
--          fired STARTED: run it; WAITING: it waits in its queue; NO: not due yet, another came first, or the ledger says why;
--          TOO_LATE: the calendars have changed since they were read, and nothing was done
--
-- One script, so no crash can lose the slot or fire it twice: RedBeat sends first and moves on second, others the reverse.
-- Losing the comparison is the normal lot of all instances but one.
-- A slot that the ledger knows is not fired again, and one that may have run before the store lost its last writes is not either.
-- Rarely: event_keep firing_repeated firing_ended firing_excluded sweep_settle sweep_attempts sweep_untils sweep_ended task_unfinished
-- Rarely: line_leave firing_overtaken ledger_missed firing_skipped task_queue attempt_hand_over task_end ledger_forget task_read
-- Rarely: task_cancel task_give_way task_queue_again counts_begin line_join line_marked
-- include: _lib/firing _lib/calendar

-- A slot must not be skipped for a task whose instance is dead; what this one has begun it takes back when it claims.
task_sweep(20, false, {ids = {}, count = 0, process = string.match(ARGV[#ARGV - 3], '^[^.]*%.')})

local jobs, overlaps = column(12, 1), column(12, 7)
for i, text in ipairs(overlaps) do overlaps[i] = policies_of(text).overlap end
local s = schedule_of(KEYS[28], KEYS[29], KEYS[30], KEYS[31], jobs)
firing_gather(jobs, column(12, 3), overlaps)
local calendars = page(KEYS[32])
local NOT = {RESULT.NO, 0, 0, now}

local out = each(12, function(i)
  local job, expected, slot, text, said = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 5], policies_of(ARGV[i + 6])
  local owner, call, lease_ms, excluded = ARGV[i + 7], ARGV[i + 8], tonumber(ARGV[i + 9]), ARGV[i + 11]
  local overlap, keep = said.overlap, said.keep
  local id = slot_id(job, slot)
  counter_read(q.fence)  -- nothing is moved on unless a fence can be minted
  if read(s.slots, job) ~= expected then
    local mine = firing_repeated(id, owner, call)
    return mine and {RESULT.STARTED, mine.fence, mine.expires, now} or NOT
  end
  local was, expected_due = string.match(expected, '^(%-?%d+) (%-?%d+) ')
  expected_due = tonumber(expected_due)
  if expected_due > now then return NOT end

  if not calendars_agree(calendars, ARGV[i + 10]) then return {RESULT.TOO_LATE, 0, 0, now} end
  if counted_out(job, said.limit) then
    firing_ended(s, job, expected)
    return NOT
  end
  firing_move_on(s, job, expected, ARGV[i + 4])
  if firing_missed(s, job, slot, id, ARGV[i + 3], excluded == '' and said.window or -1, keep) then return NOT end
  if excluded ~= '' then
    firing_excluded(job, slot, excluded, keep)
    return NOT
  end
  local code, detail
  if overlap ~= 'allow' then
    code, detail = firing_overlap(job, id, math.max(slot, expected_due), owner, overlap, said.buffer, said.cap)
  end
  local record, lease = record_new(text, slot), nil
  record_stamp(record, tonumber(was) == slot and expected_due or tonumber(string.match(text, '^%d+ {"fire_ms":(%d+)') or '0'), keep)
  if not code and lease_ms > 0 then
    local unread, holder
    lease, unread, holder = attempt(task_start, id, record, owner, call, lease_ms)
    if not lease then code, detail = unread and REASON.LOCK_UNREAD or REASON.LOCK_HELD, holder or '' end
  end
  if code and code ~= WAITS then
    firing_skipped(job, slot, code, detail, keep)
    return NOT
  end
  if code then
    record_says(record, REASON.BUFFERED, owner)
    task_write(id, record)
    line_join(job, slot)
  elseif not lease then
    local place = detail
    record_says(record, place and REASON.TOOK_PLACE or REASON.FIRED, owner)
    task_queue(id, record, math.min(place or slot, slot))
  end
  tally(q.stats, 'fired')
  counted(job, 'fired', 1, true)
  event(q, job, 'fired', id)
  if counted_out(job, said.limit) then firing_ended(s, job, expected) end
  if overlap ~= 'allow' and not code then write(q.open, job, id) end
  ledger_keep(job, slot, keep)
  return lease and {RESULT.STARTED, lease.fence, lease.expires, now} or {RESULT.WAITING, 0, 0, now}
end)
schedule_see(s)
return out
