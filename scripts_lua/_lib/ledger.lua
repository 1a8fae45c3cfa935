-- _lib/ledger: which slots of a job are kept. What became of a slot is its task's record.
--
--   order  zset  JOB \255 SLOT_MS, 15 digits, all of score 0: a job's slots in order
-- needs: _lib/places _lib/counts _lib/reasons

local function ledger_member(job, slot)
  return job .. '\255' .. string.format('%015d', slot)
end

local function slot_id(job, slot)
  local text = int(slot)
  local id = job .. '@' .. text
  if not slots_of[id] then slots_of[id] = {job, tonumber(slot), text, job} end
  return id
end

-- The tasks of these slots, without those that name none.
local function ledger_ids(job, members)
  local ids = {}
  for _, member in ipairs(members) do
    local slot = tonumber(string.sub(member, #job + 2))
    if slot then ids[#ids + 1] = slot_id(job, slot) end
  end
  gather(q.tasks, ids)
  return ids
end

-- Forget these of a job's slots. A task that has not ended goes on, and is forgotten at its end.
local function ledger_drop(job, members)
  for _, member in ipairs(members) do leave(q.order, member) end
  for _, id in ipairs(ledger_ids(job, members)) do
    local record = attempt(task_read, id)
    local state = record and record.state
    if state ~= 'waiting' and state ~= 'running' and state ~= 'stopping' then task_forget(id, record) end
  end
end

local turn, grown = time[2] % 8, nil  -- job -> {keep, its latest slot}

-- Beyond `keep` entries a job's oldest go, at each eighth that is entered: counting costs more than writing. A hundred at most, whatever
-- jobs they are of: many may have been told to keep less. What a clock that was set back has left ahead of now is not counted.
local function ledger_trim()
  local room = 100
  for job, of in pairs(grown) do
    scatter(q.order)
    local low, high = '[' .. job .. '\255', '[' .. ledger_member(job, math.max(of[2], now))
    local surplus = math.min(redis.call('ZLEXCOUNT', q.order[KEY], low, high) - of[1], room)
    if surplus > 0 then ledger_drop(job, range(q.order, low, high, surplus)) end
    room = room - math.max(surplus, 0)
  end
end

-- Enter a slot, whose record is in `task`.
local function ledger_keep(job, slot, keep)
  enter(q.order, ledger_member(job, slot), 0)
  turn = turn + 1
  if turn % 8 == 0 then
    grown = grown or join({}, ledger_trim)
    grown[job] = {keep, math.max(slot, grown[job] and grown[job][2] or 0)}
  end
end

-- Enter what was not fired: `state` is skipped, missed or anchored.
local function ledger_tell(job, slot, state, code, detail, json, keep)
  local record = record_new('0 ' .. json, slot)
  record.state, record.code, record.detail = state, code, detail
  task_write(slot_id(job, slot), record)
  ledger_keep(job, slot, keep)
end

-- Slots that came due and were not fired (`state`: missed or skipped), as one entry under the first of them. `count` -1: too many to count, or unknown. What is
-- known of one of them stays: since the clock was set back they may have come due twice.
local function ledger_several(job, state, first, last, count, code, detail, keep)
  while read(q.tasks, slot_id(job, first)) do
    if first >= last or count == 1 then return end
    first = first + 1
  end
  ledger_tell(job, first, state, code, detail, '{"last":' .. int(last) .. ',"count":' .. count .. '}', keep)
  counted(job, state, math.max(count, 1), true)
end

local function ledger_missed(job, first, last, count, code, detail, keep)
  ledger_several(job, 'missed', first, last, count, code, detail, keep)
end

-- What happened to a job besides its slots: under the moment itself, or the next that the ledger has free.
local function ledger_anchored(job, code, detail, keep)
  for at = now, now + 100 do
    if not read(q.tasks, slot_id(job, at)) then return ledger_tell(job, at, 'anchored', code, detail, '', keep) end
  end
end

-- A job's slot was lost, and with it what came due since the last that the ledger knows.
local function ledger_lost(job, keep)
  scatter(q.order)
  local last = redis.call('ZREVRANGEBYLEX', q.order[KEY], '(' .. ledger_member(job, now), '[' .. job .. '\255', 'LIMIT', 0, 1)[1]
  local first = (last and tonumber(string.sub(last, #job + 2)) or now) + 1
  ledger_missed(job, math.min(first, now), now, -1, REASON.SLOT_LOST, '', keep)
end
