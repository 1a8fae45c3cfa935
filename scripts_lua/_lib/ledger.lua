-- _lib/ledger: which slots of a job are kept. What became of a slot is its task's record.
--
--   order  zset  JOB \255 SLOT_MS, 15 digits, all of score 0: a job's slots in order. Behind all jobs, as no name begins so:
--                \255 AT, 15 digits, and after a \254 each JOB \255 SLOT_MS, or JOB!ID of a run that was triggered, that one run of a script
--                entered at that time; \255\255 AT ...: of these again those that did not end well, or were triggered
--                \255\255\255 ...: events, see _lib/events
-- A slot's line is written once a run of a script, so it costs a slot next to nothing. What the ledger has forgotten is taken out of it
-- later, see log_thin.
-- needs: _lib/places _lib/past _lib/counts _lib/reasons _lib/events

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

local function ledger_past(job)
  return past_parse(read(q.counts, job .. '\255'))
end

local function ledger_past_is(job, lacks)
  write(q.counts, job .. '\255', past_text(lacks))
end

-- Remember that there was something between these slots: a backfill must not fire them again.
local function ledger_lacks(job, first, last, entries)
  local lacks = ledger_past(job)
  lacks.since, lacks.past = lacks.past > 0 and math.min(lacks.since, first) or first, math.max(lacks.past, last)
  lacks.gone = lacks.gone + entries
  ledger_past_is(job, lacks)
end

-- Forget these of a job's slots, the oldest first.
local function ledger_forget(job, members)
  ledger_drop(job, members)
  local first, last = tonumber(string.sub(members[1] or '', #job + 2)), tonumber(string.sub(members[#members] or '', #job + 2))
  if first and last then ledger_lacks(job, first, last, #members) end
end

local turn, grown = time[2] % 8, nil  -- job -> {keep, its latest slot}
local logged, begins = nil, nil  -- what a line begins with -> the members that it names; what that of now begins with
local LOOKS = 12

-- Thin out a log: first its oldest lines, as long as the ledger has forgotten all that they name. If the log still names more than twice what the
-- ledgers keep, as beside a job of each month that of each second is forgotten in newer lines: then lines at random. `entered`: what this run has
-- added; half as much again is looked at, as only each eighth run looks.
local function log_thin(log, entered)
  -- Take out of a line what is forgotten. Returns how many it names, and whether none is left.
  local function clean(line)
    local members, slots, found = {}, {}, {string.match(line, '^\255+%d+')}
    for member in string.gmatch(line, '\254([^\254]+)') do
      members[#members + 1] = member
      if string.find(member, '\255', 1, true) then slots[#slots + 1] = member end
    end
    local kept, at = #slots > 0 and redis.call('ZMSCORE', q.order[KEY], unpack(slots)) or {}, 0
    for _, member in ipairs(members) do
      local there
      if member == slots[at + 1] then
        at = at + 1
        there = kept[at]
      else
        there = read(q.tasks, member)
      end
      if there then found[#found + 1] = member end
    end
    if #found <= #members then
      leave(q.order, line)
      if #found > 1 then enter(q.order, table.concat(found, '\254'), 0) end
    end
    return #members, #found == 1
  end

  scatter(q.order)
  local key, low, most = q.order[KEY], log .. '0', LOOKS * entered
  local first, count = redis.call('ZLEXCOUNT', key, '-', '(' .. low), redis.call('ZLEXCOUNT', key, '[' .. low, '(' .. log .. ':')

  -- The line at a place and those behind it, as many as name `most` if they are all as long. Also: how many it names.
  local function lines_from(start)
    local lines = redis.call('ZRANGE', key, start, start)
    local _, size = string.gsub(lines[1], '\254', '')
    local some = math.min(LOOKS, math.floor(most / size), first + count - start)
    if some > 1 then lines = redis.call('ZRANGE', key, start, start + some - 1) end
    return lines, size
  end

  local lines, size = lines_from(first)
  for _, line in ipairs(lines) do
    if size > most then break end  -- a run of few looks at no line of many
    local named, gone = clean(line)
    most = most - named
    if not gone then break end
  end
  lines, size = lines_from(first + (time[2] * 40503 + time[1]) % count)
  if log == '\255' and size * count <= 2 * first + 1000 then return end
  for _, line in ipairs(lines) do
    -- But some of these, or those that are left of many would stay for ever where all runs are of few.
    if q.order[line] ~= false and (size <= most or time[2] % size < most) then most = most - clean(line) end
  end
end

local function log_close()
  local thin = turn % 8 == 0 and {}
  for start, members in pairs(logged) do
    enter(q.order, start .. '\254' .. table.concat(members, '\254'), 0)
    if thin then
      local log = string.match(start, '^\255+')
      thin[log] = (thin[log] or 0) + #members
    end
  end
  for log, entered in pairs(thin or {}) do log_thin(log, entered) end
end

local function log_enter(start, member)
  logged = logged or join({}, log_close)
  local members = logged[start]
  if members then members[#members + 1] = member else logged[start] = {member} end
end

-- Forget these of a job's slots, of which none is to stay, in the logs as well.
local function log_drop(job, members)
  local starts = {}
  for _, id in ipairs(ledger_ids(job, members)) do
    local record = attempt(task_read, id)
    if record then
      local at = string.format('%015d', record.spawned)
      starts['\255' .. at], starts['\255\255' .. at] = true, true
    end
  end
  for start in pairs(starts) do
    for _, line in ipairs(range(q.order, '[' .. start, '(' .. start .. '\255', 100)) do
      local left = string.gsub(line, '\254([^\254]+)', function(member)
        return string.sub(member, 1, #job + 1) == job .. '\255' and '' or nil
      end)
      if left ~= line then
        leave(q.order, line)
        if string.find(left, '\254', 1, true) then enter(q.order, left, 0) end
      end
    end
  end
end

-- A slot did not end well, or was not fired.
local function ledger_odd(job, slot, record)
  local member = ledger_member(job, slot)
  if read(q.order, member) then log_enter('\255\255' .. string.format('%015d', record.spawned), member) end
end

-- Whether the ledger keeps it no longer.
local function ledger_over(record)
  local forget = record_forget(record)
  return forget > 0 and forget <= now
end

-- What has ended is looked at when a job's ledger has kept it for so long as it is to; at the latest then, if that is said.
local function ledger_until(id, record, latest)
  local forget = record_forget(record)
  if forget > 0 then latest = math.min(forget, latest or forget) end
  if latest then enter(q.ended, id, latest) end
end

-- Beyond `keep` entries a job's oldest go, at each eighth that is entered: counting costs more than writing. A hundred at most, whatever
-- jobs they are of: many may have been told to keep less. What a clock that was set back has left ahead of now is not counted.
local function ledger_trim()
  local room, lacks = 100, {}
  for job in pairs(grown) do lacks[#lacks + 1] = job .. '\255' end
  gather(q.counts, lacks)
  for job, of in pairs(grown) do
    scatter(q.order)
    local low, high = '[' .. job .. '\255', '[' .. ledger_member(job, math.max(of[2], now))
    local count, lacks = redis.call('ZLEXCOUNT', q.order[KEY], low, high), ledger_past(job)
    local from, to = lacks.from, lacks.to
    if to > 0 then count = count - redis.call('ZLEXCOUNT', q.order[KEY], '[' .. ledger_member(job, from), '(' .. ledger_member(job, to)) end
    local surplus = math.min(count - string.match(of[1], '^%d+'), room)
    if surplus > 0 then
      local before = to > 0 and '(' .. ledger_member(job, from) or high
      local members = range(q.order, low, before, surplus)
      if #members < surplus and before ~= high then
        for _, member in ipairs(range(q.order, '[' .. ledger_member(job, to), high, surplus - #members)) do members[#members + 1] = member end
      end
      ledger_forget(job, members)
    end
    room = room - math.max(surplus, 0)
  end
end

-- Enter a slot, whose record is in `task`. `keep`: "COUNT MS", how many entries of the job, and none for longer; COUNT: for ever.
local function ledger_keep(job, slot, keep)
  local member = ledger_member(job, slot)
  enter(q.order, member, 0)
  begins = begins or '\255' .. string.format('%015d', now)
  log_enter(begins, member)
  turn = turn + 1
  if turn % 8 == 0 then
    grown = grown or join({}, ledger_trim)
    grown[job] = {keep, math.max(slot, grown[job] and grown[job][2] or 0)}
  end
end

-- Enter a slot again that its job's ledger has lost. Of others that it has lost nobody can tell any more.
local function ledger_list(id, job, slot, record)
  ledger_lacks(job, 0, now, 0)
  enter(q.order, ledger_member(job, slot), 0)
  log_enter('\255' .. string.format('%015d', record.spawned), ledger_member(job, slot))
  if record.state ~= 'done' then ledger_odd(job, slot, record) end
  ledger_until(id, record)
end

-- Enter what was not fired: `state` is skipped, missed or anchored.
local function ledger_tell(job, slot, state, code, detail, json, keep)
  local record = record_new('0 ' .. json, slot)
  record.state, record.code, record.detail = state, code, detail
  record_stamp(record, 0, keep)
  task_write(slot_id(job, slot), record)
  ledger_keep(job, slot, keep)
  ledger_odd(job, slot, record)
  ledger_until(slot_id(job, slot), record)
  if state ~= 'anchored' then event(q, job, state, slot_id(job, slot), code, detail or '', json) end
end

-- Slots that came due and were not fired (`state`: missed or skipped), as one entry under the first of them. `count` -1: too many to count, or unknown. What is
-- known of one of them stays: since the clock was set back they may have come due twice.
local function ledger_several(job, state, first, last, count, code, detail, keep)
  while read(q.tasks, slot_id(job, first)) do
    local several = string.match(read(q.tasks, slot_id(job, first)), '\255{"last":(%d+),"count":%-?%d+}$')
    first = math.max(first, tonumber(several) or first) + 1
    if first > last or count == 1 then return end
  end
  ledger_tell(job, first, state, code, detail, '{"last":' .. int(last) .. ',"count":' .. count .. '}', keep)
  counted(job, state, math.max(count, 1), true, code)
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
