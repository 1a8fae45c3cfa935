-- _lib/backfilling: which slots a backfill fires, and what becomes of what the ledger had of them.
-- needs: _lib/ending _lib/backfill _lib/pause

local KNOWN = 'known'
local LEFT = 'left'
-- Of these nobody knows whether they ran.
local unsure = {[REASON.WENT_BACK] = true, [REASON.EMPTIED] = true, [REASON.SLOT_LOST] = true}

-- The last of the slots that an entry of the ledger stands for which were not fired, and how many; nil: it stands for one, or was fired.
local function several(record)
  if record.state ~= 'missed' and record.state ~= 'skipped' then return nil end
  local last, count = string.match(record.json, '"last":(%d+),"count":(%-?%d+)')
  return tonumber(last), tonumber(count)
end

-- What the ledger says of a slot: its record or, if it is one of several, theirs; and under which slot that stands.
local function ledger_of(job, slot)
  local record = task_read(slot_id(job, slot))
  if record then return record, slot end
  scatter(q.order)
  local high, low = '(' .. ledger_member(job, slot), '[' .. job .. '\255'
  local before = redis.call('ZREVRANGEBYLEX', q.order[KEY], high, low, 'LIMIT', 0, 1)[1]
  local first = before and tonumber(string.sub(before, #job + 2))
  record = first and task_read(slot_id(job, first))
  if record and (several(record) or 0) >= slot then return record, first end
end

-- Whether a slot is not to be fired: KNOWN, it has run or is at it; LEFT, nobody knows whether it ran. nil: it is; and then what the ledger
-- says of it, and where.
local function backfill_verdict(job, slot, b)
  local found, problem, first = attempt(ledger_of, job, slot)
  if problem then return KNOWN end
  if found and found.state ~= 'missed' and found.state ~= 'skipped' then return KNOWN end
  local lost = found and unsure[found.code] or not found and (b.since <= slot and slot <= b.past or read(q.order, ledger_member(job, slot)))
  if lost and b.unknown == 0 then return LEFT end
  return nil, found, first
end

-- What the ledger has of several slots is its line for these alone.
local function ledger_part(job, first, last, count, of)
  local id, part = slot_id(job, first), record_new('0 {"last":' .. int(last) .. ',"count":' .. int(count) .. '}', first)
  part.state, part.code, part.detail, part.spawned = of.state, of.code, of.detail, of.spawned
  task_write(id, part)
  enter(q.order, ledger_member(job, first), 0)
  ledger_until(id, part)
  return part
end

-- A slot is fired that the ledger has as one of several: those before it are an entry, and those after it are one.
-- `before`, `following`: its neighbours among the slots that the job had then; nil: none follows.
local function ledger_split(job, slot, record, first, before, following)
  local last, count = several(record)
  if not last then return end
  if first < slot and before < first then
    leave(q.order, ledger_member(job, first))
    leave(q.ended, slot_id(job, first))
    erase(q.tasks, slot_id(job, first))
  elseif first < slot then
    ledger_part(job, first, before, before == first and 1 or -1, record)
  end
  local at = following or last + 1
  while at <= last and read(q.tasks, slot_id(job, at)) do at = at + 1 end
  if at > last then return end
  local rest = ledger_part(job, at, last, first == slot and count > 1 and count - 1 or -1, record)
  log_enter('\255' .. string.format('%015d', rest.spawned), ledger_member(job, at))
  ledger_odd(job, at, rest)
end

-- A slot's neighbours among those that the job had then. `older`: ":BEFORE:AFTER" by the trigger of that time; empty: it is that of now.
local function backfill_around(older, before, following)
  local previous, next = string.match(older, '^:(%-?%d+):(%-?%d+)$')
  if not previous then return before, following end
  return tonumber(previous), tonumber(next) > 0 and tonumber(next) or nil
end

-- Count which of the slots that were fired have ended.
local function backfill_count(job, b)
  local ids, open = {}, {}
  for at, slot in ipairs(b.open) do ids[at] = slot_id(job, slot) end
  gather(q.tasks, ids)
  for at, id in ipairs(ids) do
    local record, problem = attempt(task_read, id)
    local state = record and record.state
    if problem or state == 'waiting' or state == 'running' or state == 'stopping' then
      open[#open + 1] = b.open[at]
    elseif state == 'done' or state == 'cancelled' then
      b[state], b.row = b[state] + 1, state == 'done' and 0 or b.row
    else
      local word = state == 'dead' and 'failed' or 'missed'
      b[word], b.row = b[word] + 1, b.row + (state == 'dead' and 1 or 0)
    end
  end
  b.open = open
end

-- What the job's next task has to wait for: one that has not ended, whatever it is of. nil: nothing.
local function backfill_behind(job, owner)
  local open = line_of(job)
  while open and not task_unfinished(open, owner) do
    line_leave(job, open)
    open = line_of(job)
  end
  return open
end

-- Its slots are kept beside those that the job keeps, as many again; some of its stretch the job keeps anyway.
local function backfill_keep(job, b, keep)
  local lacks = ledger_past(job)
  lacks.from, lacks.to = b.from, b.at
  ledger_past_is(job, lacks)
  scatter(q.order)
  local low = '[' .. ledger_member(job, b.from)
  local surplus = redis.call('ZLEXCOUNT', q.order[KEY], low, '(' .. ledger_member(job, b.at)) - 2 * string.match(keep, '^%d+')
  if surplus > 0 then ledger_forget(job, range(q.order, low, '(' .. ledger_member(job, b.open[1] or b.at), math.min(surplus, 100))) end
end

-- Its own identity, whatever the ledger had under it: once it has ended it is a slot as any other. `said`: "BY \30 WHY" of the backfill. `behind`: the job
-- has an unfinished task, and it waits in line for its end, so that a line which never empties does not starve it.
local function backfill_fire(job, slot, text, said, owner, overlap, behind, limit, keep)
  local id = slot_id(job, slot)
  local record = record_new(text, slot)
  local forget = string.match(keep, ' (%d+)$')
  record.detail = '\30' .. said .. '\31' .. '0 0 ' .. int(forget and now + forget or 0)
  record_says(record, behind and REASON.BUFFERED or REASON.BACKFILLED, owner)
  leave(q.ended, id)
  -- Not as long due as it is: those that are due now would wait for all of them.
  if behind then
    record.due = now
    task_write(id, record)
    line_join(job, slot, true)
  else
    task_queue(id, record, now)
    if overlap ~= 'allow' then write(q.open, job, id) end
  end
  ledger_keep(job, slot, keep)
  tally(q.stats, 'fired')
  if limit == 0 then counted(job, 'fired', 1, true) end
end

-- Where a job stands. BEATS: slots from there on are the beat's, which waits until the job has moved on. STOOD: of a paused job, whose slots
-- from there on its resuming is to skip.
local function backfill_place(place, places, paused, job)
  local stands, comes, words = string.match(place, '^(%d+) (%d+) (.*)$')
  local at, never = tonumber(stands) or math.huge, comes == NEVER
  return {beats = never and math.huge or at, stood = never and at or math.huge, words = words, places = places, paused = paused, job = job}
end

-- A backfill has come to this slot. Those of a pause before it are skipped, and the job stands behind it.
local function backfill_pass(at, slot, before, following, keep)
  if slot < at.stood then return end
  local code, detail = pause_says(at.paused, at.job, read(at.paused, at.job))
  if at.stood < slot then
    ledger_several(at.job, 'skipped', at.stood, math.max(before, at.stood), at.stood == before and 1 or -1, code, detail, keep)
  end
  at.stood = following or slot
  write(at.places, at.job, int(at.stood) .. ' ' .. NEVER .. ' ' .. at.words)
end
