-- _lib/firing: what becomes of a slot that has come due: it moves on, and is fired, skipped or missed.
-- needs: _lib/sweep _lib/schedule

-- Read all that a batch needs. `slots`, `overlaps`: of each of these jobs.
local function firing_gather(jobs, slots, overlaps)
  local ids, guarded, locks = {}, {}, {}
  for i, job in ipairs(jobs) do
    ids[i] = slot_id(job, slots[i])
    if overlaps[i] ~= 'allow' then
      guarded[#guarded + 1] = job
      locks[#locks + 1] = 'job:' .. job
    end
  end
  gather(q.counts, jobs)
  gather(q.open, guarded)
  lease_gather(q.locks, locks)
  for _, job in ipairs(guarded) do ids[#ids + 1] = read(q.open, job) end
  gather(q.tasks, ids)
end

-- The job was fired as often as it is to be.
local function firing_ended(s, job, expected)
  schedule_end(s, job, string.match(expected, '^%S+ %S+ (.*)$'), LIMIT_MS)
end

-- `following`: what job:slot is to say; empty: the job has ended.
local function firing_move_on(s, job, expected, following, next_due)
  if following == '' then
    schedule_end(s, job, string.match(expected, '^%S+ %S+ (.*)$'), ENDED_MS)
  else
    write(s.slots, job, following)
    enter(s.dues, job, next_due)
  end
end

-- The reply to this very call may have been lost after it had fired and started the task: its lease.
local function firing_repeated(id, owner, call)
  local record = task_read(id)
  local lease = record and record.state == 'running' and attempt_lease(id, record)
  return lease and lease.live and lease.owner == owner and lease_took(lease, call) and lease or nil
end

-- Enter the slots that were missed before this one; and this one, if it may have been fired before the store lost its last writes, or
-- has outlived its window: then true.
local function firing_missed(s, job, slot, id, first, last, count, window, keep)
  if count ~= 0 then
    ledger_missed(job, first, last, count, first <= s.unsure and REASON.WENT_BACK or REASON.NOT_FIRED, '', keep)
  end
  if read(q.tasks, id) then return true end  -- the ledger knows it
  local late = window >= 0 and now - slot > window
  if slot > s.unsure and not late then return false end
  ledger_missed(job, slot, slot, 1, slot <= s.unsure and REASON.WENT_BACK or REASON.LATE, slot <= s.unsure and '' or int(window), keep)
  return true
end

local function firing_skipped(job, slot, code, detail, keep)
  ledger_tell(job, slot, 'skipped', code, detail, '', keep)
  counted(job, 'skipped', 1, true)
end

-- Under overlap skip: the job's unfinished task makes way, or keeps the slot from being fired: returns why. Else nil, nil and the place in the
-- queue of one that no worker had begun.
local function firing_overlap(job, owner)
  local open = read(q.open, job)
  if not open then return nil end
  local busy, unread, place = attempt(task_make_way, open, owner)
  if unread then return REASON.OVERLAP_UNREAD, open end
  if busy then return REASON.OVERLAP, open end
  return nil, nil, place
end
