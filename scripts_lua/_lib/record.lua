-- _lib/record: a task as the store has it: HEAD \255 ATTEMPTS \255 JSON.
--
-- HEAD      "STATE ATTEMPTS MAX SPAWNED DUE SEQ UNTIL BEGAN ENDED CODE DETAIL"; times in ms, 0: none. UTF-8 never holds bytes 253 to 255.
--   STATE     waiting, running, stopping (it was cancelled, and its body has yet to stop), done, dead, cancelled; of slots also skipped,
--             missed, anchored
--   ATTEMPTS  begun so far, MAX: of so many. SEQ: its place among those of one priority and time; 0: it is in no queue
--   UNTIL     cancelled then, if it has not begun (ended) by then. BEGAN: of the latest attempt. ENDED: when the task ended
--   CODE      why it is as it is, see _lib/reasons; "-": no reason. DETAIL: what the sentence names, to the end; where it names nothing, who
--             fired the slot, if that did not begin it at once
--   Behind DETAIL a slot's task may have \31 and "FIRE TURN FORGET": when it was to be fired, its jitter included; when the one before it in
--   line had ended; when its ledger forgets it. 0: with its slot; it waited for none; when there are too many. And before that, if a backfill
--   has fired it, \30 BY \30 WHY: who began that, and why. Before all that, if somebody had the task tried again: \29 AT BY \29 and the CODE
--   and DETAIL that it had ended with. And first, while DETAIL names who cancelled it: \28 and who fired it
-- ATTEMPTS  the last ten, separated by \254: "N FENCE BEGAN ENDED HOW OWNER" and, after \253, why it failed (at most 500 bytes) or the
--           CODE by which it was taken back, or CODE and DETAIL of who cancelled it. HOW: done, failed, lost, cut, cancelled; "-": it runs
-- JSON      name, queue, policies: what is not decided by every time; empty: a slot that has ended, and can't be retried
--
-- The newest attempt says who may end the task: its lease says only until when it is trusted.
-- needs: _lib/task _lib/reasons

local MOST_TRIES, MOST_ERROR = 10, 500

local slots_of = {}  -- id -> {job, slot, note, guard}, as below: asked several times for each task
local function slot_known(id)
  local known = slots_of[id]
  if not known then
    local job, slot = string.match(id, '^(.*)@(%-?%d+)$')
    local guard, note = job, slot
    if not job and string.find(id, '!', 1, true) then guard, note = string.match(id, '^(.*)(!%x+)$') end
    known = {job, tonumber(slot), note, guard}
    slots_of[id] = known
  end
  return known
end

-- The job and the slot of a slot's task; of another nil.
local function job_of(id)
  local known = slot_known(id)
  return known[1], known[2]
end

-- The job whose lock its attempts take unless overlap is allow, and the NOTE of their leases: of a slot's task, and of one that was
-- triggered (JOB!ID). nil: it was spawned.
local function guard_of(id)
  local known = slot_known(id)
  return known[4], known[3]
end

local function record_parse(text)
  local state, attempts, max, spawned, due, seq, till, began, ended, code, detail, at =
    string.match(text, '^(%l+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ([^ \255]+) ([^\255]*)\255()')
  local parted = at and string.find(text, '\255', at, true)
  if not parted then return nil end
  return {
    state = state, attempts = tonumber(attempts), max = tonumber(max), spawned = tonumber(spawned), due = tonumber(due),
    seq = tonumber(seq), till = tonumber(till), began = tonumber(began), ended = tonumber(ended), code = code, detail = detail,
    tries = string.sub(text, at, parted - 1), json = string.sub(text, parted + 1),
  }
end

local function record_text(r)
  return string.format('%s %d %d %d %d %d %d %d %d ', r.state, r.attempts, r.max, r.spawned, r.due, r.seq, r.till, r.began, r.ended)
    .. r.code .. ' ' .. r.detail .. '\255' .. r.tries .. '\255' .. r.json
end

-- One that nobody has begun. `text`: "MAX JSON".
local function record_new(text, due)
  local at = string.find(text, ' ', 1, true)
  return {
    state = 'waiting', attempts = 0, max = tonumber(string.sub(text, 1, at - 1)), spawned = now, due = due, seq = 0, till = 0, began = 0, ended = 0,
    code = '-', detail = '', tries = '', json = string.sub(text, at + 1),
  }
end

-- What stands behind DETAIL.
local function record_times(record)
  local detail = record.detail
  if not string.find(detail, '[\28\29\31]') then return '' end
  local at = string.find(detail, '\31%d+ %d+ %d+$')
  local times = at and (string.match(detail, '\30[^\30\31]*\30[^\30\31]*\31[%d ]+$') or string.sub(detail, at)) or ''
  local again = string.match(string.sub(detail, 1, #detail - #times), '\29%d+ [^\29]*\29[^\29]*$') or ''
  local fired = string.match(string.sub(detail, 1, #detail - #times - #again), '\28[^\28]*$') or ''
  return fired .. again .. times
end

-- Whether somebody had it tried again: such a one is not skipped or missed, though no worker has begun it.
local function record_is_again(record)
  return string.find(record.detail, '\29', 1, true) ~= nil
end

-- Whether no attempt of it has begun, and nobody but its time wants it: then it gives way to a later slot.
local function record_is_fresh(id, record)
  return record.tries == '' and job_of(id) and not record_is_again(record) and not string.find(record.json, '"backfill":', 1, true)
end

-- When its ledger forgets it; 0: when there are too many.
local function record_forget(record)
  return tonumber(string.match(record.detail, '\31%d+ %d+ (%d+)$') or '0')
end

-- Of a new one: when it is to be fired, if later than its slot; and how its job's ledger keeps: "COUNT MS", or COUNT.
local function record_stamp(record, fire, keep)
  local ms = tonumber(string.match(keep, ' (%d+)$') or '0')
  if fire <= record.due and ms == 0 then return end
  record.detail = record.detail .. '\31' .. int(fire > record.due and fire or 0) .. ' 0 ' .. int(ms > 0 and now + ms or 0)
end

-- It has waited in line, and the one before it has ended.
local function record_turn(record)
  local detail, fire, forget = string.match(record.detail, '^(.*)\31(%d+) %d+ (%d+)$')
  record.detail = (detail or record.detail) .. '\31' .. (fire or '0') .. ' ' .. int(now) .. ' ' .. (forget or '0')
end

-- DETAIL without what stands behind it.
local function record_detail(record)
  return string.sub(record.detail, 1, #record.detail - #record_times(record))
end

-- By the CODE of one that waits, runs or was done: its DETAIL names who fired it, and stays under a reason that names nothing.
local FIRED_BY = {
  ['-'] = true, [REASON.FIRED] = true, [REASON.TOOK_PLACE] = true, [REASON.BUFFERED] = true, [REASON.BACKFILLED] = true,
  [REASON.EXPIRED] = true, [REASON.RELEASED] = true, [REASON.LEASE_DELETED] = true, [REASON.SHUTDOWN] = true, [REASON.RETRIED] = true,
}

-- Why it is as it is. That its job was deleted stays: what becomes of it is nothing to a job that is declared by that name since.
local function record_says(record, code, detail)
  if record.code == REASON.JOB_DELETED then return end
  if detail or not FIRED_BY[record.code] then
    local ends = detail and FIRED_BY[record.code] and (record.state == 'cancelled' or record.state == 'stopping')
    local fired = ends and record_detail(record) or ''
    record.detail = (detail or '') .. (fired == '' and '' or '\28' .. fired) .. record_times(record)
  end
  record.code = code or '-'
end

-- CODE and what it names, as text; nil: it has no reason.
local function record_why(record)
  if record.code == '-' then return nil end
  local named = FIRED_BY[record.code] and '' or record_detail(record)
  return named == '' and record.code or record.code .. ' ' .. named
end

-- Somebody has it tried again. Only the latest time is kept.
local function record_again(record, by)
  local times = string.match(record_times(record), '[\30\31].*$') or ''
  local was = string.gsub(record_why(record) or '', '[\28-\31]', ' ')
  local fired = FIRED_BY[record.code] and record_detail(record) or string.match(record_times(record), '^\28([^\29-\31]*)') or ''
  record.code, record.detail = REASON.RETRIED, fired .. '\29' .. int(now) .. ' ' .. by .. '\29' .. was .. times
end

local function task_write(id, record)
  write(q.tasks, id, record_text(record))
end

-- What its JSON says; an ended slot's says nothing.
local function policies(id, record)
  if not record.policies then
    local ok, said = pcall(cjson.decode, record.json)
    if not ok or type(said) ~= 'table' or type(said.queue) ~= 'string' then unreadable(q.tasks[KEY], id) end
    record.policies = said
  end
  return record.policies
end

local function dead_member(id, record)
  return policies(id, record).queue .. '\255' .. string.format('%015.0f', record.ended) .. id
end

-- What became of it was written before the clock was set back: what it is kept for begins now.
local function record_set_back(id, record)
  local forget_at = read(q.ended, id)
  if forget_at then enter(q.ended, id, now + math.max(forget_at - record.ended, 0)) end
  local dead = record.state == 'dead' and record.json ~= '' and dead_member(id, record)
  record.ended = now
  if dead and read(q.dead, dead) then
    leave(q.dead, dead)
    enter(q.dead, dead_member(id, record), 0)
  end
  task_write(id, record)
end

local function task_read(id)
  local text = read(q.tasks, id)
  if not text then return nil end
  local record = record_parse(text)
  if not record then unreadable(q.tasks[KEY], id) end
  if record.ended > now + SET_BACK_MS then record_set_back(id, record) end
  return record
end

-- Its newest attempt, and `at` which place of `tries` that begins.
local function last_try(record)
  if record.try then return record.try end
  local tries = record.tries
  local at = string.find(tries, '\254', 1, true) and string.match(tries, '^.*\254()') or 1
  local begins, fence, owner = string.match(tries, '^(%d+ (%d+) %d+ )%d+ %S+ ([^\253]*)', at)
  record.try = {at = at, begins = begins, fence = tonumber(fence), owner = owner}
  return record.try
end

-- When it began, when it ended and HOW, as text.
local function last_tried(record)
  return string.match(record.tries, '^%d+ %d+ (%d+) (%d+) (%S+)', last_try(record).at)
end

-- When a task that waits was last heard of: when its latest attempt ended, or when it was spawned.
local function waits_since(record)
  local _, ended = last_tried(record)
  return tonumber(ended or record.spawned)
end

-- That was before the clock was set back: it is now.
local function waits_from_now(record)
  local at = last_try(record).at
  local tried = string.gsub(string.sub(record.tries, at), '^(%d+ %d+ %d+) %d+', '%1 ' .. int(now))
  record.tries = string.sub(record.tries, 1, at - 1) .. tried
end

local function try_begin(record, fence, owner)
  local tries = record.tries
  if tries ~= '' then
    local _, kept = string.gsub(tries, '\254', '')
    if kept >= MOST_TRIES - 1 then tries = string.match(tries, '^[^\254]*\254(.*)$') end
    tries = tries .. '\254'
  end
  local begins = string.format('%d %d %d ', record.attempts, fence, now)
  record.tries = tries .. begins .. '0 - ' .. owner
  record.try = {at = #tries + 1, begins = begins, fence = fence, owner = owner}
end

local function try_drop(record)
  record.tries, record.try = string.sub(record.tries, 1, math.max(last_try(record).at - 2, 0)), nil
end

-- `error`: text, or nil. A character that the cut would halve goes whole.
local function try_end(record, how, error)
  local try = last_try(record)
  if error and #error > MOST_ERROR then
    local halves = string.find(error, '^[\128-\191]', MOST_ERROR + 1)
    error = string.sub(error, 1, MOST_ERROR)
    if halves then error = string.gsub(error, '[\192-\247]?[\128-\191]*$', '') end
  end
  record.tries = string.sub(record.tries, 1, try.at - 1) .. try.begins .. int(now) .. ' ' .. how .. ' ' .. try.owner
    .. (error and error ~= '' and '\253' .. error or '')
end

-- Whether this attempt is the one that the task is at.
local function is_at(record, owner, fence)
  if record.state ~= 'running' and record.state ~= 'stopping' then return false end
  local try = last_try(record)
  return try.owner == owner and try.fence == fence
end
