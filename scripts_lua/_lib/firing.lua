-- _lib/firing: what becomes of a slot that has come due: it moves on, and is fired, skipped or missed.
-- needs: _lib/sweep _lib/schedule _lib/events

local MANY = 8  -- jobs of one run, or more: there are enough of them for their hashes to be searched for long

-- What a job says of how it is fired, read once a run: many say the same.
-- OVERLAP: skip, allow, buffer_one, buffer_all or cancel_other. WINDOW: fire only within so many ms of the slot; -1:
-- however late. LIMIT: after so many slots that were fired it has ended; 0: never. BUFFER, CAP: so many slots may wait in line under overlap
-- buffer_all and under catch-up all; CAP 0: under another. KEEP: how its ledger keeps, see _lib/ledger, to the end.
local policies_known = {}
local function policies_of(text)
  local said = policies_known[text]
  if not said then
    local overlap, window, limit, buffer, cap, keep = string.match(text, '^(%S+) (%S+) (%d+) (%d+) (%d+) (.+)$')
    said = {overlap = overlap, keep = keep, window = tonumber(window), limit = tonumber(limit), buffer = tonumber(buffer), cap = tonumber(cap)}
    policies_known[text] = said
  end
  return said
end

-- A hash of up to 512 short values is searched by the server from end to end: of some hundred jobs that costs a slot more than what is done
-- about it. One value of more than 64 bytes has it hashed; it stands under a field that is no job's name.
local function firing_hash(part)
  if not read(part, '') then write(part, '', 'so long that the server hashes the fields of this hash, and finds each of them at once') end
end

-- Read all that a batch needs. `slots`, `overlaps`: of each of these jobs.
local function firing_gather(jobs, slots, overlaps)
  local ids, guarded, locks, counted_of = {}, {}, {}, {'\255'}  -- that is for what somebody listens
  for i, job in ipairs(jobs) do
    ids[i], counted_of[i + 1] = slot_id(job, slots[i]), job
    if overlaps[i] ~= 'allow' then
      guarded[#guarded + 1] = job
      locks[#locks + 1] = 'job:' .. job
    end
  end
  local opens, many = guarded, #jobs >= MANY
  if many then
    opens = {'', unpack(guarded)}
    counted_of[#counted_of + 1] = ''
  end
  gather(q.counts, counted_of)
  gather(q.open, opens)
  if many then
    firing_hash(q.counts)
    if guarded[1] then firing_hash(q.open) end
  end
  lease_gather(q.locks, locks)
  for _, job in ipairs(guarded) do
    if read(q.open, job) then ids[#ids + 1] = line_of(job) end
  end
  gather(q.tasks, ids)
end

-- The job was fired as often as it is to be.
local function firing_ended(s, job, expected)
  schedule_end(s, job, string.match(expected, '^%S+ %S+ (.*)$'), LIMIT_MS)
end

-- `following`: what job:slot is to say; empty: the job has ended.
local function firing_move_on(s, job, expected, following)
  if following == '' then
    schedule_end(s, job, string.match(expected, '^%S+ %S+ (.*)$'), ENDED_MS)
  else
    write(s.slots, job, following)
    enter(s.dues, job, tonumber(string.match(following, '^%d+ (%d+) ')))
  end
end

-- The reply to this very call may have been lost after it had fired and started the task: its lease.
local function firing_repeated(id, owner, call)
  local record = task_read(id)
  local lease = record and record.state == 'running' and attempt_lease(id, record)
  return lease and lease.live and lease.owner == owner and lease_took(lease, call) and lease or nil
end

-- Enter the slots that were missed before this one; and this one, if it may have been fired before the store lost its last writes, or
-- has outlived its window: then true. `before`: "FIRST LAST COUNT".
local function firing_missed(s, job, slot, id, before, window, keep)
  if before ~= '' then
    local first, last, count = string.match(before, '^(%d+) (%d+) (%-?%d+)$')
    first = tonumber(first)
    ledger_missed(job, first, tonumber(last), tonumber(count), first <= s.unsure and REASON.WENT_BACK or REASON.NOT_FIRED, '', keep)
  end
  if read(q.tasks, id) then return true end  -- the ledger knows it
  local late = window >= 0 and now - slot > window
  if slot > s.unsure and not late then return false end
  ledger_missed(job, slot, slot, 1, slot <= s.unsure and REASON.WENT_BACK or REASON.LATE, slot <= s.unsure and '' or int(window), keep)
  return true
end

local function firing_skipped(job, slot, code, detail, keep)
  ledger_tell(job, slot, 'skipped', code, detail, '', keep)
  counted(job, 'skipped', 1, true, code)
end

-- Calendars exclude it, and what has come due of its day as well: "LAST COUNT CALENDAR ENTRY".
local function firing_excluded(job, slot, said, keep)
  local last, count, detail = string.match(said, '^(%d+) (%d+) (.*)$')
  ledger_several(job, 'skipped', slot, tonumber(last), tonumber(count), REASON.EXCLUDED, detail, keep)
end

-- Nobody has begun these slots of a job, and none will be, for `id` takes their place.
local function firing_overtaken(job, slots, id)
  for _, slot in ipairs(slots) do
    local waits = slot_id(job, slot)
    local record = task_read(waits)
    if record and record.state == 'waiting' then
      task_end(waits, record, 'skipped', REASON.OVERTAKEN, id)
    else
      line_leave(job, waits)
    end
  end
end

-- A slot whose job has an unfinished task. Returns nil: it is fired now, and, if a task that no worker had begun gave way, its place in the
-- queue; WAITS: in line; or the CODE and detail of why it is skipped. `due`: when the slot was to be fired. `buffer`: so many may wait in
-- line under buffer_all. `cap`: so many under catch-up all; 0: another.
local WAITS = 'waits'
local function firing_overlap(job, id, due, owner, overlap, buffer, cap)
  if not read(q.open, job) then return nil end
  local open, slots = line_of(job)
  local record, unread = attempt(task_unfinished, open, owner)
  if unread then return REASON.OVERLAP_UNREAD, open end
  if not record then
    line_leave(job, open)
    if not read(q.open, job) then return nil end
    return firing_overlap(job, id, due, owner, overlap, buffer, cap)  -- of the next in line, of which there are fewer now
  end
  -- What was triggered, and what is backfilled, gives way to no slot; but a slot is not skipped for one that is backfilled, or was cancelled
  -- and has yet to stop.
  local past = string.find(record.json, '"backfill":', 1, true)
  local fresh = record.state == 'waiting' and record_is_fresh(open, record)
  if overlap == 'skip' and (past or record.state == 'stopping') then overlap = 'buffer_one' end
  local stays = not fresh or overlap == 'buffer_all' or cap > 0
  slots = line_own(job, slots)
  if stays and record.state == 'waiting' then task_queue_again(open, record) end

  -- What came due before the unfinished one was fired did so in an outage, or behind one that did: it is caught up, in its turn.
  if cap > 0 and (#slots > 0 or fresh or record.spawned >= due) then
    while #slots >= cap do
      local oldest = slot_id(job, slots[1])
      local waits = task_read(oldest)
      if waits and waits.state == 'waiting' then task_end(oldest, waits, 'missed', REASON.NOT_BEGUN) else line_leave(job, oldest) end
      open, slots = line_of(job)
      slots = line_own(job, slots)
    end
    return WAITS
  end
  if overlap == 'buffer_all' then
    if #slots >= buffer then return REASON.BUFFER_FULL, int(buffer) end
    return WAITS
  end
  if overlap == 'skip' and not fresh then return REASON.OVERLAP, open end
  firing_overtaken(job, slots, id)
  local place = fresh and task_give_way(open, record) or nil
  if not fresh and overlap == 'cancel_other' and record.state ~= 'stopping' then task_cancel(open, record, REASON.OVERTAKEN, id) end
  -- Those that it took the place of, or what waited to be tried again, may have let one of a backfill go first.
  return read(q.open, job) and WAITS or nil, place
end
