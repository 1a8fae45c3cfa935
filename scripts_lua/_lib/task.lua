-- _lib/task: the life of a task: ready -> leased -> ended, or back to ready.
--
--   records   hash  ID -> JSON: name, queue, job, overlap, max_attempts, retry
--   attempts  hash  ID -> "ATTEMPTS STARTED_MS"
--   ready     zset  QUEUE \255 PRIORITY DUE_MS SEQ ID: claimable, first the most urgent, then the longest due
--   delayed   zset  QUEUE \255 DUE_MS PRIORITY SEQ ID: not before DUE_MS
--   open      hash  JOB -> ID of its unfinished task, under overlap skip
-- All members have score 0 and fixed widths (2, 15, 16 digits), so lexical order is the order wanted. A script that includes
-- this declares the 17 keys below first, in this order. A running job under overlap skip holds the lock `job:NAME`.
-- needs: _lib/lease _lib/waiting _lib/ledger

local q = {
  records = KEYS[1], attempts = KEYS[2], ready = KEYS[3], delayed = KEYS[4],
  leases = {leases = KEYS[5], live = KEYS[6], owned = KEYS[7]},
  open = KEYS[8],
  ledger = {ledger = KEYS[9], order = KEYS[10]},
  counter = KEYS[11],
  locks = {leases = KEYS[12], live = KEYS[13], owned = KEYS[14]},
  waiting = {queue = KEYS[15], waiters = KEYS[16]},
  bell = KEYS[17],
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

-- Wake the workers, once a run: a task that nobody was told of would wait for the next that is.
local function task_announce()
  if claimable then redis.call('PUBLISH', q.bell, 'task') end
end

local function task_attempts(id)
  local attempts, started = string.match(redis.call('HGET', q.attempts, id) or '0 0', '^(%d+) (%d+)$')
  return tonumber(attempts), tonumber(started)
end

local function task_lock(record)
  return 'job:' .. record.job
end

-- Begin an attempt: lease the task, and under overlap skip its job's lock. Returns the lease, or nil and who holds the lock.
local function task_start(id, record, owner, token, lease_ms)
  if record.job and record.overlap == 'skip' then
    local name = task_lock(record)
    local lock = lease_read(q.locks, name)
    if lock and lock.live then return nil, lock.owner end
    lease_keep(q.locks, lease_grant(q.locks, q.counter, name, lock, owner, token, lease_ms).expires + TOMBSTONE_MS)
  end
  redis.call('HSET', q.attempts, id, (task_attempts(id) + 1) .. ' ' .. int(now))
  return lease_grant(q.leases, q.counter, id, lease_read(q.leases, id), owner, token, lease_ms)
end

-- The job's lock goes with the attempt that took it.
local function task_unlock(record, lease)
  if not (record.job and record.overlap == 'skip') then return end
  local name = task_lock(record)
  local lock = lease_read(q.locks, name)
  if lock and lock.live and lock.owner == lease.owner and lock.token == lease.token then
    lease_free(q.locks, name, lock, '-')
    if redis.call('EXISTS', q.waiting.queue) == 1 then hand_off(q.locks, q.waiting, q.counter, name, lock, '') end
  end
end

-- Forget a task that has ended; the ledger keeps what became of its slot.
local function task_end(id, record, changes)
  local attempts, started = task_attempts(id)
  redis.call('HDEL', q.records, id)
  redis.call('HDEL', q.attempts, id)
  if not record.job then return end
  if redis.call('HGET', q.open, record.job) == id then redis.call('HDEL', q.open, record.job) end
  changes.attempt, changes.started, changes.ended = attempts, started > 0 and started or nil, now
  ledger_update(q.ledger, id, changes)
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
local function task_failed(id, record, reason, retry_at)
  local attempts = task_attempts(id)
  if attempts < record.max_attempts then
    local due = retry_at or now + retry_delay(record.retry, attempts)
    task_queue(id, record, math.max(due, now))
    return due
  end
  task_end(id, record, reason)
  return nil
end

-- Take back up to `most` leases whose owners let them expire.
local function task_sweep(most)
  local swept = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', q.leases.live, '-inf', int(now), 'LIMIT', 0, most)) do
    local lease = lease_read(q.leases, id)
    local value = lease and lease.expires > 0 and redis.call('HGET', q.records, id)
    if lease then lease_drop(q.leases, id, lease) else redis.call('ZREM', q.leases.live, id) end
    if value then
      local record = cjson.decode(value)
      task_unlock(record, lease)
      task_failed(id, record,
        {state = 'lost', by = lease.owner, fence = int(lease.fence), reason = 'its lease expired: the instance died or lost the store'})
      swept = swept + 1
    end
  end
  return swept
end
