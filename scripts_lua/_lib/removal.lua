-- _lib/removal: a job goes. First it is taken out of all that says that it is there; what it leaves behind can be much, and goes in pages.
-- needs: _lib/ending _lib/pause _lib/origin _lib/tags

-- Nobody fires it from here on, and its name is free. `by`: who says so.
local function job_remove(s, owners, job, by)
  local line = read(s.defs, job)
  if line then
    origin_passes(owners, job, origin_of(line), nil)
    tags_pass(s.tags, job, line, nil)
  end
  erase(s.defs, job)
  leave(s.order, job)
  erase(s.slots, job)
  leave(s.dues, job)
  counts_drop(job)
  erase(s.backfills, job)
  leave(s.filling, job)
  pause_drop(s.paused, s.changes, job)
  if line then change_note(s.changes, '', change_text('delete', now, 0, by, job)) end
end

local function withdraw(id)
  local record = task_read(id)
  if record and record.state == 'waiting' then
    task_unqueue(id, record)
    task_end(id, record, 'cancelled', REASON.JOB_DELETED)
  elseif record and record.state == 'running' then
    record_says(record, REASON.JOB_DELETED)
    task_write(id, record)
  end
end

-- Forget its ledger, up to `limit` entries, and the tasks of it that wait; one that runs goes on. Returns how many entries there were.
local function job_clear(owners, job, limit)
  local open, slots = line_of(job)
  erase(q.open, job)  -- first, or whoever ends lets the next in line go
  if #slots > limit then
    for _ = 1, limit do withdraw(line_id(job, table.remove(slots))) end
    line_lead(job, open, slots)
    return limit
  end
  if open then withdraw(open) end
  for _, slot in ipairs(slots) do withdraw(line_id(job, slot)) end
  -- What runs goes on, and leads: overlap decides over it if the job is put again.
  local record = open and task_read(open)
  if record and (record.state == 'running' or record.state == 'stopping') then write(q.open, job, open) end
  local members = range(q.order, '[' .. job .. '\255', '(' .. job .. '\255\255', limit)
  for _, id in ipairs(ledger_ids(job, members)) do withdraw(id) end
  log_drop(job, members)
  ledger_drop(job, members)
  if #members < limit then leave(owners, '\255' .. job) else enter(owners, '\255' .. job, 0) end
  return #members
end
