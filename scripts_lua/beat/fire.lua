-- beat/fire: for each job: if its slot is still the expected one and has come due, create the task and move on to the next.
--
-- KEYS[1]  task          hash    the tasks, see _lib/task
-- KEYS[2]  task:attempt  hash
-- KEYS[3]  task:ready    zset
-- KEYS[4]  task:delayed  zset
-- KEYS[5]  task:lease    hash    their leases, see _lib/lease
-- KEYS[6]  task:live     zset
-- KEYS[7]  task:owned    zset
-- KEYS[8]  job:open      hash
-- KEYS[9]  ledger        hash    what became of each slot, see _lib/ledger
-- KEYS[10] ledger:order  zset
-- KEYS[11] fence         string  the last fence of this shard
-- KEYS[12] lock          hash    a running job's lock is one of these
-- KEYS[13] lock:live     zset
-- KEYS[14] lock:owned    zset
-- KEYS[15] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[16] lock:waiters  hash
-- KEYS[17] bell          channel  rung when a task can be claimed
-- KEYS[18] job:slot      hash    job -> "SLOT DUE REV"
-- KEYS[19] job:due       zset
-- ARGV[1]  job           str
-- ARGV[2]  expected      str     what the caller saw in job:slot
-- ARGV[3]  slot          int     ms; the one to fire, the latest that came due
-- ARGV[4]  first         int     ms; the first that came due and is not fired
-- ARGV[5]  last          int     ms; the last of those
-- ARGV[6]  count         int     how many; 0: none; -1: too many to count
-- ARGV[7]  window        int     ms; fire only within this time of the slot; -1: however late
-- ARGV[8]  next          str     what job:slot is to say; empty: the job has ended
-- ARGV[9]  next_due      int     ms; when to look at the job next
-- ARGV[10] record        json    of the task
-- ARGV[11] overlap       str     skip or allow
-- ARGV[12] keep          int     ledger entries of the job to keep
-- ARGV[13] owner         str     of the attempt
-- ARGV[14] call          id      of this call; the same again is the same call, repeated
-- ARGV[15] lease_ms      int     start it here at once, under such a lease; 0: let any worker claim it
-- Batch: ARGV[1..15] repeat, one group a call.
--
-- Returns  {2, fence, expires_at_ms, now_ms}  fired, and started: run it
--          {1, 0, 0, now_ms}                   fired, waiting in its queue
--          {0, 0, 0, now_ms}                   not fired: not due yet, another came first, or the ledger says why
--
-- One script, so no crash can lose the slot or fire it twice: RedBeat sends first and moves on second, others the reverse.
-- Losing the comparison is the normal lot of all instances but one.
-- include: _lib/lease _lib/waiting _lib/ledger _lib/task

local slots, due_at = KEYS[18], KEYS[19]
local out = {}

local function fire(i)
  local job, expected, slot, missed = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 5])
  local window, overlap, keep = tonumber(ARGV[i + 6]), ARGV[i + 10], tonumber(ARGV[i + 11])
  local owner, call, lease_ms = ARGV[i + 12], ARGV[i + 13], tonumber(ARGV[i + 14])
  local id = job .. '@' .. int(slot)
  if redis.call('HGET', slots, job) ~= expected then
    -- The reply to this very call may have been lost after it had fired and started the task.
    local mine = lease_read(q.leases, id)
    if mine and mine.live and mine.owner == owner and mine.token == call then return {2, mine.fence, mine.expires, now} end
    return {0, 0, 0, now}
  end
  if tonumber(string.match(expected, '^%-?%d+ (%-?%d+) ')) > now then return {0, 0, 0, now} end

  if ARGV[i + 7] == '' then
    redis.call('HDEL', slots, job)
    redis.call('ZREM', due_at, job)
  else
    redis.call('HSET', slots, job, ARGV[i + 7])
    redis.call('ZADD', due_at, ARGV[i + 8], job)
  end
  if missed ~= 0 then
    ledger_missed(q.ledger, job, tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), missed,
      'no instance fired it before the next was due', keep)
  end
  if window >= 0 and now - slot > window then
    ledger_missed(q.ledger, job, slot, slot, 1, 'more than ' .. window .. ' ms late, and catch-up is skip', keep)
    return {0, 0, 0, now}
  end
  local open = overlap == 'skip' and redis.call('HGET', q.open, job)
  if open then
    ledger_write(q.ledger, job, slot, {state = 'skipped', at = now, reason = 'overlap: ' .. open .. ' had not ended'}, keep)
    return {0, 0, 0, now}
  end

  redis.call('HSET', q.records, id, ARGV[i + 9])
  if overlap == 'skip' then redis.call('HSET', q.open, job, id) end
  local record = lease_ms > 0 and {job = job, overlap = overlap} or cjson.decode(ARGV[i + 9])
  if lease_ms == 0 then
    ledger_write(q.ledger, job, slot, {state = 'fired', at = now, by = owner}, keep)
    task_queue(id, record, slot)
    return {1, 0, 0, now}
  end
  local lease, holder = task_start(id, record, owner, call, lease_ms)
  if not lease then
    ledger_write(q.ledger, job, slot, {state = 'skipped', at = now, reason = 'overlap: the job\'s lock is held by ' .. holder}, keep)
    task_end(id, record, {})
    return {0, 0, 0, now}
  end
  ledger_write(q.ledger, job, slot, {state = 'fired', at = now, by = owner, fence = int(lease.fence)}, keep)
  return {2, lease.fence, lease.expires, now}
end

task_sweep(20)  -- a slot must not be skipped for a task whose instance is dead
for i = 1, #ARGV, 15 do out[#out + 1] = fire(i) end
task_announce()
return out
