-- _lib/sweep: what time has brought: attempts that have expired, limits that are over, ended tasks to forget.
-- needs: _lib/ending

local SWEEP_MS = 1.5  -- so that no run takes longer than 5 ms on a slow core

-- How many ms this run has taken. Redis 7.0 has no os.clock, and servers after it have one TIME a run.
local cpu = rawget(_G, 'os')
local began = cpu and cpu.clock()
local function spent()
  if cpu then return (cpu.clock() - began) * 1000 end
  local at = redis.call('TIME')
  return (at[1] - time[1]) * 1000 + (at[2] - time[2]) / 1000
end

-- What a run of the sweep has met: entries that can't be read, whether something is left to do, and attempts that it spared.
local swept = {strange = {}, backlog = false, spared = false}
local firsts = {}  -- index -> when its first comes

-- Whether the clock may have been set back: the last fence says how far it was then. What only renewed meanwhile left no fence, so
-- that every eighth run looks anyhow.
local function set_back()
  local _, unread = attempt(counter_read, q.fence)
  return unread or last > (now + SET_BACK_MS) * 1000 or time[2] % 8 == 0
end

-- What lies further ahead than it can, since the clock was set back, is looked for at the far end of each index.
local function sweep_settle(most)
  for _, t in ipairs({q.leases, q.locks}) do
    scatter(t.live)
    local last = redis.call('ZRANGE', t.live[KEY], -most, -1, 'WITHSCORES')
    for i = #last - 1, 1, -2 do
      if last[i] ~= '' then
        if tonumber(last[i + 1]) <= now + SET_BACK_MS then break end
        local lease = attempt(lease_read, t, last[i])
        if lease and not lease.mended then break end
      end
    end
    -- Leases that lost their expiry are in no order: a look anywhere finds them in the end.
    if redis.call('HLEN', t.records[KEY]) > redis.call('ZCARD', t.live[KEY]) then
      local keys = redis.call('HRANDFIELD', t.records[KEY], most)
      lease_gather(t, keys)
      for _, key in ipairs(keys) do
        if key ~= '' then attempt(lease_read, t, key) end
      end
    end
  end
  for _, id in ipairs(redis.call('ZRANGE', q.untils[KEY], -1, -1)) do
    local record = attempt(task_read, id)
    if record and record.till > 0 then until_settle(id, record) end
  end
  for _, id in ipairs(redis.call('ZRANGE', q.ended[KEY], -1, -1)) do attempt(task_read, id) end
end

-- When the next of an index comes; nil: never. What a table holds besides ('') comes never.
local function sweep_first(x)
  scatter(x)
  local row = redis.call('ZRANGE', x[KEY], 0, 0, 'WITHSCORES')
  firsts[x] = row[1] and row[1] ~= '' and tonumber(row[2]) or nil
  return firsts[x]
end

local function sweep_comes(x)
  return (sweep_first(x) or now + 1) <= now
end

local function sweep_all(x, most, more, aside, see_to)
  local found = due(x, now, most + more)
  swept.backlog = swept.backlog or #found == most + more
  for at, id in ipairs(found) do
    if at > 8 + more and spent() > SWEEP_MS then
      swept.backlog = true
      return
    end
    local _, problem = attempt(see_to, id)
    if problem and aside then
      enter(x, id, now + ASIDE_MS)
      swept.strange[#swept.strange + 1] = problem
    end
  end
end

-- Of a lease that is gone only its expiry was left, and that is over: nobody else would end its attempt.
local function sweep_deleted(t, key)
  local id = key
  if t == q.locks then
    local job = string.match(key, '^job:([^\255]*)$')
    id = job and line_of(job)
  end
  local record = id and task_read(id)
  if record and (record.state == 'running' or record.state == 'stopping') and not attempt_lease(id, record) then
    task_lost(id, record, REASON.LEASE_DELETED)
  end
end

local function sweep_attempts(t, most, aside, spares)
  sweep_all(t.live, most, spares.count, aside, function(key)
    local lease = lease_read(t, key)
    if not lease then
      leave(t.live, key)
      return sweep_deleted(t, key)
    end
    if lease.live then return end
    local id = t == q.leases and key or lease_task(key, lease)
    if not id then return lease_drop(t, key, lease) end  -- a lock
    local mine = spares.ids[id] or (spares.process and string.sub(lease.calls, 1, #spares.process) == spares.process)
    if mine then
      swept.spared = true
      return
    end
    local record = task_read(id)
    if record and is_at(record, lease.owner, lease.fence) then
      task_lost(id, record, REASON.EXPIRED)
    else
      lease_drop(t, key, lease)
    end
  end)
end

local function sweep_untils(most, aside)
  sweep_all(q.untils, most, 0, aside, function(id)
    local record = task_read(id)
    if record and record.till > 0 and record.till <= now and (record.state == 'waiting' or record.state == 'running') then
      task_cancel(id, record, task_limit(record))
    end
    leave(q.untils, id)
  end)
end

-- It can be tried again no more, or its ledger keeps it no longer.
local function sweep_slot(id, record)
  local job, slot = job_of(id)
  if not ledger_over(record) then
    slot_retire(id, record)
    return ledger_until(id, record)
  end
  ledger_forget(job, {ledger_member(job, slot)})
end

local function sweep_ended(most, aside)
  sweep_all(q.ended, most, 0, aside, function(id)
    local record = task_read(id)
    if record and record.state == 'stopping' then
      enter(q.ended, id, now + REPEAT_MS)  -- its body has yet to stop
    elseif record and (record.state == 'waiting' or record.state == 'running') then
      leave(q.ended, id)
    elseif record and job_of(id) then
      sweep_slot(id, record)
    else
      task_forget(id, record)
    end
  end)
end

-- Up to `most` of each. What can't be read stands in nobody's way: with `aside` it is listed in `swept.strange`, and looked at again
-- in a while. `spares`: the attempts of the caller's own, whose bodies still run, are not taken back, though a clock that was set
-- forward or a process that stood still let their leases run out. `ids`: these, `count` of them; `process`: all that were begun by
-- calls whose ids begin so.
local function task_sweep(most, aside, spares)
  if set_back() then sweep_settle(most) end
  for _, t in ipairs({q.leases, q.locks}) do
    if sweep_comes(t.live) then sweep_attempts(t, most, aside, spares) end
  end
  if sweep_comes(q.untils) then sweep_untils(most, aside) end
  if sweep_comes(q.ended) then sweep_ended(most, aside) end
end

-- When the next of an index comes that was swept before; what this run has begun is not counted.
local function sweep_next(x)
  if firsts[x] and firsts[x] <= now then sweep_first(x) end
  return firsts[x]
end

-- The same of the locks' attempts. Of the locks no more than some are looked at: ask again then.
local function sweep_next_job()
  if not sweep_next(q.locks.live) then return nil end
  local rows, keys = redis.call('ZRANGE', q.locks.live[KEY], 0, 19, 'WITHSCORES'), {}
  for i = 1, #rows, 2 do keys[#keys + 1] = rows[i] end
  lease_gather(q.locks, keys)
  for i, key in ipairs(keys) do
    local lease = key ~= '' and attempt(lease_read, q.locks, key)
    if (lease and lease.note ~= '-') or i == 20 then return tonumber(rows[2 * i]) end
  end
end
