-- _lib/task: the life of a task: ready -> leased -> ended, or back to ready.
--
--   records   hash  ID -> "ATTEMPTS STARTED_MS FIRED_MS JSON"; JSON: name, queue, job, overlap, max_attempts, retry
--   ready     zset  QUEUE \255 PRIORITY DUE_MS SEQ ID: claimable, first the most urgent, then the longest due
--   delayed   zset  QUEUE \255 DUE_MS PRIORITY SEQ ID: not before DUE_MS
--   open      hash  JOB -> ID of its unfinished task, under overlap skip
-- All members have score 0 and fixed widths (2, 15, 16 digits), so lexical order is the order wanted. A script that includes
-- this declares the 15 keys below first, in this order. A running job under overlap skip holds the lock `job:NAME`.
-- needs: _lib/lease _lib/waiting _lib/ledger

local q = {
  records = KEYS[1], ready = KEYS[2], delayed = KEYS[3],
  leases = {leases = KEYS[4], live = KEYS[5], owned = KEYS[6]},
  open = KEYS[7],
  ledger = {ledger = KEYS[8], order = KEYS[9]},
  counter = KEYS[10],
  locks = {leases = KEYS[11], owned = KEYS[12]},
  waiting = {queue = KEYS[13], waiters = KEYS[14]},
  bell = KEYS[15],
}
local claimable = false

local function task_seq()
  return string.format('%016.0f', mint(q.counter))
end

-- Let a task be claimed from `due` on.
local function task_queue(id, record, due)
  local priority = string.format('%02d', 50 - (record.priority or 0))
  local when, seq = string.format('%015.0f', due), task_seq()
  claimable = true
  if due <= now then
    redis.call('ZADD', q.ready, 0, record.queue .. '\255' .. priority .. when .. seq .. id)
  else
    redis.call('ZADD', q.delayed, 0, record.queue .. '\255' .. when .. priority .. seq .. id)
  end
end

local function task_read(id)
  local value = redis.call('HGET', q.records, id)
  if not value then return nil end
  local attempts, started, fired, json = string.match(value, '^(%d+) (%d+) (%d+) (.*)$')
  local record = cjson.decode(json)
  record.attempts, record.started, record.fired, record.json = tonumber(attempts), tonumber(started), tonumber(fired), json
  return record
end

local function task_write(id, record)
  redis.call('HSET', q.records, id,
    record.attempts .. ' ' .. int(record.started) .. ' ' .. int(record.fired) .. ' ' .. record.json)
end

local function task_lock(record)
  return record.job and record.overlap == 'skip' and 'job:' .. record.job
end

-- Begin the next attempt: lease the task and, under overlap skip, its job's lock, with one fence for both. Returns the lease,
-- or nil and who holds the lock.
local locked = now
local function task_start(id, record, owner, token, lease_ms)
  local name, fence = task_lock(record), mint(q.counter)
  if name then
    local lock = lease_read(q.locks, name)
    if lock and lock.live then return nil, lock.owner end
    lease_grant(q.locks, fence, name, lock, owner, token, lease_ms)
    locked = math.max(locked, now + lease_ms)
  end
  record.attempts, record.started = record.attempts + 1, now
  task_write(id, record)
  return lease_grant(q.leases, fence, id, nil, owner, token, lease_ms)
end

-- What the run did that others must see: its locks outlive their TTL, and workers are woken, once a run.
local function task_finish()
  if locked > now then lease_keep(q.locks, q.counter, locked + TOMBSTONE_MS) end
  if claimable then redis.call('PUBLISH', q.bell, 'task') end
end

-- The job's lock goes with the attempt that took it.
local awaited
local function task_unlock(record, lease)
  local name = task_lock(record)
  local lock = name and lease_read(q.locks, name)
  if lock and lock.live and lock.owner == lease.owner and lock.token == lease.token then
    lease_drop(q.locks, name, lock)
    if awaited == nil then awaited = redis.call('EXISTS', q.waiting.queue) == 1 end
    if awaited and hand_off(q.locks, q.waiting, q.counter, name, nil, '') then locked = math.max(locked, now + GRANT_MS) end
  end
end

-- Forget a task that has ended; the ledger keeps what became of its slot: `state`, by whom, and why.
local function task_end(id, record, state, by, fence, reason)
  redis.call('HDEL', q.records, id)
  if not record.job then return end
  if redis.call('HGET', q.open, record.job) == id then redis.call('HDEL', q.open, record.job) end
  ledger_replace(q.ledger, id, ledger_entry(state, record.fired, by, fence, record.attempts, record.started, now, reason))
end

-- delay after attempt n = base * factor^(n-1), capped; a power too large for a number is infinite, and so the cap.
local function retry_delay(retry, attempt)
  if type(retry) ~= 'table' then return 0 end
  if retry.type == 'fixed' then return retry.seconds * 1000 end
  if retry.base == 0 then return 0 end
  local cap = type(retry.max) == 'number' and retry.max or 315619200
  return math.min(retry.base * retry.factor ^ (attempt - 1), cap) * 1000
end

-- An attempt failed, or its owner is gone. Another, after the policy's delay or at `retry_at`; or the end, with the reason.
-- Returns when it is retried, or nil.
local function task_failed(id, record, state, lease, reason, retry_at)
  if record.attempts < record.max_attempts then
    local due = math.max(retry_at or now + retry_delay(record.retry, record.attempts), now)
    task_queue(id, record, due)
    if record.job then
      ledger_replace(q.ledger, id,
        ledger_entry('retrying', record.fired, lease.owner, lease.fence, record.attempts, record.started, nil, reason))
    end
    return due
  end
  task_end(id, record, state, lease.owner, lease.fence, reason)
  return nil
end

-- Take back up to `most` leases whose owners let them expire.
local function task_sweep(most)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', q.leases.live, '-inf', int(now), 'LIMIT', 0, most)) do
    local lease, record = lease_read(q.leases, id), task_read(id)
    if lease then lease_drop(q.leases, id, lease) else redis.call('ZREM', q.leases.live, id) end
    if lease and record then
      task_unlock(record, lease)
      task_failed(id, record, 'lost', lease, 'its lease expired: the instance died or lost the store')
    end
  end
end
