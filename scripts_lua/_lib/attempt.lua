-- _lib/attempt: one attempt of a task: where it is leased, how it begins, and how it leaves.
-- needs: _lib/places _lib/waiting

local KEPT_MS = 7 * 86400 * 1000  -- the keys of the locks outlive an attempt by this, or nobody could take it back

-- The table, the key and the note of its lease. A job's attempt is leased as the lock `job:NAME`, which keeps other slots off.
local function attempt_place(id, record)
  local job, note = guard_of(id)
  if job and not string.find(record.json, '"overlap":"allow"', 1, true) then return q.locks, 'job:' .. job, note end
  return q.leases, id, '-'
end

-- Read what these tasks' attempts need, all at once. `waiting`: none is leased, but the job of one may be.
local function attempt_gather(ids, waiting)
  gather(q.tasks, ids)
  local keys, jobs = {}, {}
  for _, id in ipairs(ids) do
    local text = q.tasks[id]
    local job = text and guard_of(id)
    if job and not string.find(text, '"overlap":"allow"', 1, true) then
      jobs[#jobs + 1] = 'job:' .. job
    elseif text and not waiting then
      keys[#keys + 1] = id
    end
  end
  lease_gather(q.locks, jobs)
  lease_gather(q.leases, keys)
end

-- The lease of the newest attempt, its table and its key; nil: it is gone.
local function attempt_lease(id, record)
  local t, key, note = attempt_place(id, record)
  local fence = last_try(record).fence
  local lease = lease_read(t, key)
  if lease and lease.fence == fence then return lease, t, key end
  if t == q.leases then return nil end
  key = key .. '\255' .. note  -- it had expired, and the lock was given to another
  lease = lease_read(t, key)
  if lease and lease.fence == fence then return lease, t, key end
end

local function attempt_hand_over(t, key, old)
  local handed = attempt(hand_off, q.waiting, q.fence, key, '')
  if not handed then return nil end
  lease_outlive(t, lease_grant(t, key, old, handed).expires)
  return handed.owner
end

local awaited

-- The job's lock is free: hand it to the first who waits for it. Returns its new holder, or nil. `old`: a lease that has expired.
local function attempt_hand_on(t, key, old)
  if awaited == nil then awaited = redis.call('EXISTS', q.waiting.queue) == 1 end
  return awaited and attempt_hand_over(t, key, old) or nil
end

-- Begin the next attempt. Returns its lease; or nil and who holds its job's lock.
local function task_start(id, record, owner, call, lease_ms)
  local t, key, note = attempt_place(id, record)
  local held = t == q.locks and lease_read(t, key) or nil  -- what waits has no lease of its own
  if held and held.live then return nil, held.owner end
  local before = t == q.locks and attempt_hand_on(t, key, held)
  if before then return nil, before end
  local fence = mint(q.fence)
  record.state, record.attempts, record.began, record.seq = 'running', record.attempts + 1, now, 0
  record_says(record)
  local longest = not job_of(id) and policies(id, record).max_duration_ms
  if (record.attempts == 1 and record.till > 0) or (longest and (record.attempts == 1 or record.till == 0)) then
    task_until(id, record, longest and now + longest or 0)
  end
  try_begin(record, fence, owner)
  task_write(id, record)
  tally(q.stats, 'begun')
  if t == q.locks then lease_outlive(t, now + KEPT_MS) end
  return lease_grant(t, key, held, {fence = fence, ttl = lease_ms, calls = call, note = note, owner = owner})
end

-- The attempt is over: its lease goes, and a lock is handed on.
local function task_leave(id, record)
  local lease, t, key = attempt_lease(id, record)
  if not lease then return end
  lease_drop(t, key, lease)
  if t == q.locks then attempt_hand_on(t, key) end
end
