-- beat/fire: for each job: if its slot is still the expected one and has come due, create the task and move on to the next.
--
-- KEYS[1..24] of _lib/task
-- KEYS[25] job:slot      hash    job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[26] job:due       zset
-- ARGV[1]  job           str
-- ARGV[2]  expected      str     what the caller saw in job:slot
-- ARGV[3]  slot          int     ms; the one to fire, the latest that came due
-- ARGV[4]  first         int     ms; the first that came due and is not fired
-- ARGV[5]  last          int     ms; the last of those
-- ARGV[6]  count         int     how many; 0: none; -1: too many to count
-- ARGV[7]  window        int     ms; fire only within this time of the slot; -1: however late
-- ARGV[8]  next          str     what job:slot is to say; empty: the job has ended
-- ARGV[9]  next_due      int     ms; when to look at the job next
-- ARGV[10] record        text    of the task: "MAX JSON"
-- ARGV[11] overlap       str     skip or allow
-- ARGV[12] keep          int     ledger entries of the job to keep
-- ARGV[13] owner         str     of the attempt
-- ARGV[14] call          id      of this call; the same again is the same call, repeated
-- ARGV[15] lease_ms      int     start it here at once, under such a lease; 0: let any worker claim it
-- Batch: ARGV[1..15] repeat, one group a call, at most 32 a run.
--
-- Returns  {fired, fence, expires_at_ms, now_ms}
--          fired STARTED: run it; WAITING: it waits in its queue; NO: not due yet, another came first, or the ledger says why
--
-- One script, so no crash can lose the slot or fire it twice: RedBeat sends first and moves on second, others the reverse.
-- Losing the comparison is the normal lot of all instances but one.
-- A slot that the ledger knows is not fired again, and one that may have run before the store lost its last writes is not either.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/schedule _lib/task

local s = {slots = KEYS[25], dues = KEYS[26]}
schedule_seen(s)

local function fire(i)
  local job, expected, slot, missed = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 5])
  local window, overlap, keep = tonumber(ARGV[i + 6]), ARGV[i + 10], tonumber(ARGV[i + 11])
  local owner, call, lease_ms = ARGV[i + 12], ARGV[i + 13], tonumber(ARGV[i + 14])
  local id = job .. '@' .. int(slot)
  counter_read(q.counter)  -- nothing is moved on unless a fence can be minted
  if redis.call('HGET', s.slots, job) ~= expected then
    -- The reply to this very call may have been lost after it had fired and started the task.
    local mine = lease_read(q.leases, id)
    if mine and mine.live and mine.owner == owner and mine.token == call then return {RESULT.STARTED, mine.fence, mine.expires, now} end
    return {RESULT.NO, 0, 0, now}
  end
  if tonumber(string.match(expected, '^%-?%d+ (%-?%d+) ')) > now then return {RESULT.NO, 0, 0, now} end

  if ARGV[i + 7] == '' then
    schedule_place(s, job, -1, 0, string.match(expected, '^%S+ %S+ (.*)$'))
  else
    redis.call('HSET', s.slots, job, ARGV[i + 7])
    redis.call('ZADD', s.dues, ARGV[i + 8], job)
  end
  if missed ~= 0 then
    ledger_missed(q.ledger, job, tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), missed,
      tonumber(ARGV[i + 3]) <= s.unsure and UNKNOWN or 'no instance fired it before the next was due', keep)
  end
  local function miss(reason)
    ledger_missed(q.ledger, job, slot, slot, 1, reason, keep)
    return {RESULT.NO, 0, 0, now}
  end
  if redis.call('HEXISTS', q.ledger.ledger, id) == 1 then return {RESULT.NO, 0, 0, now} end
  if slot <= s.unsure then return miss(UNKNOWN) end
  if window >= 0 and now - slot > window then return miss('more than ' .. window .. ' ms late, and catch-up is skip') end
  local function skip(reason)
    ledger_write(q.ledger, job, slot, ledger_entry('skipped', now, nil, nil, nil, nil, nil, 'overlap: ' .. reason), keep)
    return {RESULT.NO, 0, 0, now}
  end
  local open = overlap == 'skip' and redis.call('HGET', q.open, job)
  local problem, unread, place
  if open then problem, unread, place = attempt(task_make_way, open, owner) end
  if problem or unread then return skip(problem or 'what is known of ' .. open .. ' can\'t be read') end

  local text, lease, holder = ARGV[i + 9], nil, nil
  local record = lease_ms > 0 and {job = job, overlap = overlap} or cjson.decode(string.match(text, ' (.*)$'))
  record.attempts, record.started, record.spawned, record.due, record.seq, record.till, record.text = 0, 0, now, slot, 0, 0, text
  if lease_ms > 0 then
    lease, problem, holder = attempt(task_start, id, record, owner, call, lease_ms)
    if not lease then return skip('the job\'s lock ' .. (problem and 'can\'t be read' or 'is held by ' .. holder)) end
  else
    task_queue(id, record, math.min(place or slot, slot))
  end
  tally('spawned')
  if overlap == 'skip' then redis.call('HSET', q.open, job, id) end
  ledger_write(q.ledger, job, slot, ledger_entry('fired', now, owner, lease and lease.fence, nil, lease and now, nil,
    not lease and place and 'no worker began those before it' or nil), keep)
  return lease and {RESULT.STARTED, lease.fence, lease.expires, now} or {RESULT.WAITING, 0, 0, now}
end

-- A slot must not be skipped for a task whose instance is dead; what this one has begun it takes back when it claims.
task_sweep(20, false, {ids = {}, count = 0, process = string.match(ARGV[#ARGV - 1], '^[^.]*%.')})
local out = each(15, fire)
schedule_see(s)
return out
