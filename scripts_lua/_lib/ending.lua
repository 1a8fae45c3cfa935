-- _lib/ending: how a task ends, or is tried again.
-- needs: _lib/attempt _lib/counts _lib/events _lib/line _lib/messages _lib/reasons _lib/results

-- Read what ending these tasks needs, all at once.
local function ending_gather(ids)
  attempt_gather(ids)
  local jobs, members = {}, {}
  for _, id in ipairs(ids) do
    local job, slot = guard_of(id), select(2, job_of(id))
    if job then jobs[#jobs + 1] = job end
    if slot then
      members[#members + 1] = ledger_member(job, slot)
    end
  end
  gather(q.open, jobs)
  gather(q.order, members)
  if jobs[1] then jobs[#jobs + 1] = '\255' end  -- for what somebody listens
  gather(q.counts, jobs)
end

-- The last that is written of a slot: what its job's ledger has forgotten goes with its end. One that was cancelled can be tried again for a week.
local function slot_write(id, job, slot, record)
  if not read(q.order, ledger_member(job, slot)) then
    if read(q.counts, job) then ledger_lacks(job, slot, slot, 0) end  -- else the job is gone
    return task_forget(id, record)
  end
  local again = record.state == 'cancelled' and record.code ~= REASON.JOB_DELETED
  if not again then record.json = '' end
  ledger_until(id, record, again and now + DEAD_MS or nil)
  task_write(id, record)
end

-- A task has ended; "stopping": its body has yet to stop. That of a slot stays as long as the ledger has it, a spawned one until its
-- retention is over; dead ones can be retried for a week.
local function task_end(id, record, state, code, detail)
  local word = state == 'stopping' and 'cancelled' or state
  if state == 'dead' then
    local _, _, how = last_tried(record)
    word = how == 'lost' and 'lost' or 'failed'
  end
  record.state, record.ended = state, now
  record_says(record, code, detail)
  tally(q.stats, word)
  if state == 'done' and record.attempts > 1 then erase(q.failures, id) end
  task_announce(id)
  task_until(id, record, 0)
  local guard, job, slot = guard_of(id), job_of(id)
  if state == 'dead' then
    event(q, guard or '', 'dead', id, record.json, record.attempts, code or '', detail or '')
  elseif guard and state == 'done' then
    event(q, guard, 'done', id, record.json, record.attempts, record.try and record.try.fence or 0, record.began, now)
  elseif job then
    event(q, guard, word, id, code or '', detail or '', '')
  end
  if guard and state ~= 'stopping' then line_leave(guard, id) end
  if job then
    if record.code ~= REASON.JOB_DELETED then
      counted(job, word, 1, nil, (word == 'missed' or word == 'skipped') and code)
      if word ~= 'done' then ledger_odd(job, slot, record) end
    end
    if state ~= 'dead' and state ~= 'stopping' then return slot_write(id, job, slot, record) end
    if state == 'dead' and not read(q.order, ledger_member(job, slot)) then return task_forget(id, record) end
  end
  if state == 'dead' then
    ledger_until(id, record, now + DEAD_MS)
    enter(q.dead, dead_member(id, record), 0)
  elseif not job then
    enter(q.ended, id, now + math.max(policies(id, record).retention_ms, REPEAT_MS))
  end
  task_write(id, record)
end

-- That of a slot stays in the ledger, but can be retried no more.
local function slot_retire(id, record)
  if record.state == 'dead' and record.json ~= '' then leave(q.dead, dead_member(id, record)) end
  leave(q.ended, id)
  erase(q.failures, id)
  record.json = ''
  task_write(id, record)
end

-- Whether it has ended, and its retention is over: what is left of it is for repeated calls only.
local function task_over(id, record)
  if record.state ~= 'done' and record.state ~= 'dead' and record.state ~= 'cancelled' then return false end
  return record.ended + (record.state == 'dead' and DEAD_MS or policies(id, record).retention_ms) <= now
end

-- A task that is dead or was cancelled waits again. `by`: who wants that. How it ended before stays counted: counts only grow.
local function task_reopen(id, record, due, by)
  if record.state == 'dead' then leave(q.dead, dead_member(id, record)) end
  leave(q.ended, id)
  record.ended = 0
  record_again(record, by)
  local guard = guard_of(id)
  if guard and policies(id, record).overlap ~= 'allow' and not read(q.open, guard) then write(q.open, guard, id) end
  tally(q.stats, 'redriven')
  task_queue(id, record, due)
end

-- The newest attempt does not count, for its body never ran: it is left to others.
local function task_undo(id, record)
  tally(q.stats, 'left')
  try_drop(record)
  record.attempts, record.began = record.attempts - 1, tonumber((last_tried(record))) or 0
  if record.attempts > 0 then return end
  local longest = policies(id, record).max_delay_ms
  task_until(id, record, longest and record.spawned + longest or 0)
end

-- Its body has stopped, whose task was cancelled before.
local function task_stopped(id, record)
  local job, slot = job_of(id)
  try_end(record, 'cancelled', record_why(record))
  record.state = 'cancelled'
  local guard = guard_of(id)
  if guard then line_leave(guard, id) end
  if job then return slot_write(id, job, slot, record) end
  task_write(id, record)
end

-- Which limit a task has met whose UNTIL is over.
local function task_limit(record)
  return record.attempts == 0 and REASON.MAX_DELAY or REASON.MAX_DURATION
end

-- End a task that waits or runs. A running attempt keeps its lease until its body has stopped: so long nothing starts beside it.
local function task_cancel(id, record, code, detail)
  local runs = record.state == 'running'
  if not runs then task_unqueue(id, record) end
  task_end(id, record, runs and 'stopping' or 'cancelled', code, detail)
  if runs then say(q.bell, message_cancel(id)) end
end

-- delay after attempt n = base * factor^(n-1), capped; a power too large for a number is infinite, and so the cap.
-- Jitter lengthens it, so that what failed together does not come back together: by a share that id and attempt decide, as a
-- repeated call must find the same. Steps of the golden ratio spread ids that follow each other evenly.
local function retry_delay(id, retry, attempt)
  if type(retry) ~= 'table' then return 0 end
  local seconds
  if retry.type == 'fixed' then
    seconds = retry.seconds
  elseif retry.base == 0 then
    return 0
  else
    seconds = math.min(retry.base * retry.factor ^ (attempt - 1), type(retry.max) == 'number' and retry.max or 315619200)
  end
  local sum = attempt
  for at = 1, #id do sum = (sum * 31 + string.byte(id, at)) % 65521 end
  return seconds * 1000 * (1 + (type(retry.jitter) == 'number' and retry.jitter or 0) * (sum * 40503 % 65521) / 65521)
end

-- An attempt is over that did not do it: `how` as in _lib/record. Another, after the policy's delay or at `retry_at`; or the end.
-- Returns when it is retried; DEAD: its attempts are used up; CANCELLED: a retry would come too late.
local function task_failed(id, record, how, code, error, retry_at)
  task_leave(id, record)
  try_end(record, how, error or code)
  if record.attempts >= record.max then
    task_end(id, record, 'dead', code)
    return RESULT.DEAD
  end
  local due = math.ceil(math.max(retry_at or now + retry_delay(id, policies(id, record).retry, record.attempts), now))
  if record.till > 0 and due >= record.till then
    task_end(id, record, 'cancelled', REASON.RETRY_TOO_LATE)
    return RESULT.CANCELLED
  end
  tally(q.stats, 'retried')
  record_says(record, code)
  task_queue(id, record, due)
  return due
end

-- Take back an attempt whose owner will not end it.
local function task_lost(id, record, code, retry_at)
  counter_read(q.fence)  -- or it loses its lease, and does not get back into its queue
  if record.state == 'stopping' then
    task_leave(id, record)
    return task_stopped(id, record)
  end
  if record.state ~= 'running' then return end
  tally(q.stats, 'taken_back')
  local try = record.try or {}  -- whoever found it lost has looked
  event(q, guard_of(id) or '', 'lost', id, record.json, record.attempts, try.fence or 0, try.owner or '', code, record.max)
  task_failed(id, record, 'lost', code, nil, retry_at)
end

-- A task that waits, and in no queue: one of those keys was evicted, or deleted by hand. Nobody would ever claim it, and its job would
-- fire no more.
local function task_queue_again(id, record)
  local ready, delayed = places_of(id, record)
  if not read(q.ready, ready) and not read(q.delayed, delayed) then task_queue(id, record, math.max(record.due, now)) end
end

-- The job's unfinished task, at its next slot, as it is; nil: it has ended.
local function task_unfinished(id, owner)
  local record = task_read(id)
  if not record then return nil end
  if record.state == 'waiting' then return record end
  if record.state ~= 'running' and record.state ~= 'stopping' then return nil end
  local lease = attempt_lease(id, record)
  if lease and (lease.live or lease.owner == owner) then return record end
  -- The sweep has too much to do; or keys were evicted, or deleted by hand, and nothing else will ever end it.
  task_lost(id, record, lease and REASON.EXPIRED or REASON.LEASE_DELETED)
  record = task_read(id)
  return record and record.state == 'waiting' and record or nil
end

-- One that no worker has begun gives way: the latest slot is to run, and not the one that waited longest. Returns its place in the queue.
local function task_give_way(id, record)
  local place = record.due
  task_unqueue(id, record)
  task_end(id, record, 'missed', REASON.NOT_BEGUN)
  return place
end
