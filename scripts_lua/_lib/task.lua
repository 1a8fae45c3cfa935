-- _lib/task: the life of a task: waiting -> running -> done, dead or cancelled; or back to waiting.
--
-- KEYS[1]  task          hash    ID -> "ATTEMPTS STARTED SPAWNED DUE SEQ UNTIL MAX JSON"; times in ms, 0: none; SEQ 0: in no queue;
--                                UNTIL: cancelled then, if it has not begun (ended) by then; JSON: its name, queue and policies
-- KEYS[2]  task:ready    zset    QUEUE \255 PRIORITY DUE SEQ ID: claimable, first the most urgent, then the longest due
-- KEYS[3]  task:delayed  zset    QUEUE \255 DUE PRIORITY SEQ ID: not before DUE
-- KEYS[4]  task:lease    hash    a running task is leased, see _lib/lease1; FREED says "cancelled", or until when it may run
-- KEYS[5]  task:live     zset
-- KEYS[6]  task:owned    zset
-- KEYS[7]  job:open      hash    JOB -> ID of its unfinished task, under overlap skip
-- KEYS[8]  ledger        hash    what became of each slot, see _lib/ledger
-- KEYS[9]  ledger:order  zset
-- KEYS[10] fence         string  the last fence of this shard
-- KEYS[11] lock          hash    a running job under overlap skip holds the lock `job:NAME`
-- KEYS[12] lock:owned    zset
-- KEYS[13] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[14] lock:waiters  hash
-- KEYS[15] bell          channel  workers and schedulers listen, see _lib/messages
-- KEYS[16] task:outcome  hash    ID -> JSON: how its last attempt ended, see task_told; not for tasks of jobs, which have the ledger
-- KEYS[17] task:params   hash    ID -> JSON: params and headers, which no script reads
-- KEYS[18] task:ended    zset    ID by when to forget it
-- KEYS[19] task:dead     zset    QUEUE \255 ENDED ID
-- KEYS[20] task:until    zset    ID by UNTIL
-- KEYS[21] task:stats    hash    what happened -> how often
-- KEYS[22] task:awaited  zset    ID \255 CHANNEL: whom to tell when it ends
-- KEYS[23] task:result   hash    ID -> JSON: what its function returned, which no script reads
-- KEYS[24] lock:live     zset
--
-- Members of the zsets in lexical order have score 0 and fixed widths (2, 15, 16 digits): that order is the order wanted.
-- needs: _lib/lock _lib/waiting _lib/lease1 _lib/ledger _lib/messages _lib/results

local q = {
  records = KEYS[1], ready = KEYS[2], delayed = KEYS[3],
  leases = {leases = KEYS[4], live = KEYS[5], owned = KEYS[6]},
  open = KEYS[7],
  ledger = {ledger = KEYS[8], order = KEYS[9]},
  counter = KEYS[10],
  locks = lock_table(KEYS[11], KEYS[24], KEYS[12]),
  waiting = {queue = KEYS[13], waiters = KEYS[14]},
  bell = KEYS[15],
  outcomes = KEYS[16], params = KEYS[17], ended = KEYS[18], dead = KEYS[19], untils = KEYS[20], stats = KEYS[21], awaited = KEYS[22], results = KEYS[23],
}
local DEAD_MS = 7 * 86400 * 1000
local SWEEP_MS, CLAIM_MS = 1.5, 3  -- so that no run takes longer than 5 ms on a slow core
local claimable, tallied = false, {}

-- How many ms this run has taken. Redis 7.0 has no os.clock, and servers after it have one TIME a run.
local clock = rawget(_G, 'os')
local began = clock and clock.clock()
local function spent()
  if clock then return (clock.clock() - began) * 1000 end
  local at = redis.call('TIME')
  return (at[1] - time[1]) * 1000 + (at[2] - time[2]) / 1000
end

local function tally(what)
  tallied[what] = (tallied[what] or 0) + 1
end

local function task_read(id)
  local value = redis.call('HGET', q.records, id)
  if not value then return nil end
  local attempts, started, spawned, due, seq, till, text = string.match(value, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  local max, json = string.match(text or '', '^(%d+) (.*)$')
  local ok, record = pcall(cjson.decode, json)
  if not ok or type(record) ~= 'table' or type(record.queue) ~= 'string' then unreadable(q.records, id) end
  record.attempts, record.started, record.spawned, record.due = tonumber(attempts), tonumber(started), tonumber(spawned), tonumber(due)
  record.seq, record.till, record.max, record.text, record.json = tonumber(seq), tonumber(till), tonumber(max), text, json
  return record
end

-- `record.text` is "MAX JSON".
local function task_write(id, record)
  redis.call('HSET', q.records, id, record.attempts .. ' ' .. int(record.started) .. ' ' .. int(record.spawned) .. ' '
    .. int(record.due) .. ' ' .. int(record.seq) .. ' ' .. int(record.till) .. ' ' .. record.text)
end

local function task_places(id, record)
  local priority, when = string.format('%02d', 50 - (record.priority or 0)), string.format('%015.0f', record.due)
  local seq = string.format('%016.0f', record.seq) .. id
  return record.queue .. '\255' .. priority .. when .. seq, record.queue .. '\255' .. when .. priority .. seq
end

-- Let a task be claimed from `due` on.
local function task_queue(id, record, due)
  record.due, record.seq = math.floor(due), mint(q.counter)
  local ready, delayed = task_places(id, record)
  if due <= now then
    redis.call('ZADD', q.ready, 0, ready)
  else
    redis.call('ZADD', q.delayed, 0, delayed)
  end
  claimable = true  -- whoever sleeps has to know of a later time as well
  task_write(id, record)
end

local function task_unqueue(id, record)
  if record.seq == 0 then return end
  local ready, delayed = task_places(id, record)
  if redis.call('ZREM', q.ready, ready) == 0 then redis.call('ZREM', q.delayed, delayed) end
  record.seq = 0
end

local function task_dead_member(id, record, ended)
  return record.queue .. '\255' .. string.format('%015.0f', ended) .. id
end

local function task_until(id, record, till)
  if till > 0 then
    redis.call('ZADD', q.untils, int(till), id)
  elseif record.till > 0 then
    redis.call('ZREM', q.untils, id)
  end
  record.till = till
end

-- What became of it was written before the clock was set back: what it is kept for begins now.
local function task_ended_ahead(id, state, text, ended)
  local forget_at, record = redis.call('ZSCORE', q.ended, id), state == 'dead' and attempt(task_read, id)
  if forget_at then redis.call('ZADD', q.ended, int(now + math.max(tonumber(forget_at) - ended, 0)), id) end
  if record and redis.call('ZREM', q.dead, task_dead_member(id, record, ended)) == 1 then
    redis.call('ZADD', q.dead, 0, task_dead_member(id, record, now))
  end
  redis.call('HSET', q.outcomes, id, (string.gsub(text, '"ended":%d+', '"ended":' .. int(now), 1)))
  return now
end

-- What is known of a task besides its record: how its last attempt ended, or what was done to it last. Read by patterns, so the order
-- of the fields is fixed, and only JSON that scripts made comes before the ones that they look for.
local function task_told(id)
  local text = redis.call('HGET', q.outcomes, id)
  if not text then return nil end
  local state, ended, calls, rest = string.match(text, '^{"state":"(%a+)","ended":(%d+),"calls":"([^"]*)"(.*)}$')
  if not rest then unreadable(q.outcomes, id) end
  ended = tonumber(ended)
  if ended > now + SET_BACK_MS then ended = task_ended_ahead(id, state, text, ended) end
  return {state = state, ended = ended, calls = calls, rest = rest, failure = string.match(rest, '("failure":.*)$')}
end

-- `call` (nil: none) is answered with `answer`: if it is repeated because its reply was lost, it is given that again, even
-- when the task has gone on since. `more` is a field, as JSON.
local function task_tell(id, state, call, answer, by, fence, more)
  local told = attempt(task_told, id)  -- what can't be read is replaced by what is so now
  local calls = string.sub((call and call .. '=' .. int(answer) .. ',' or '') .. (told and told.calls or ''), 1, 240)
  redis.call('HSET', q.outcomes, id, '{"state":"' .. state .. '","ended":' .. int(now) .. ',"calls":"' .. calls .. '"'
    .. (by and ',"by":' .. quote(by) or '') .. (fence and ',"fence":' .. int(fence) or '') .. (more and ',' .. more or '') .. '}')
end

-- What this very call was answered before; nil: it is new.
local function task_answered(id, call)
  local told = task_told(id)
  local _, at = string.find(',' .. (told and told.calls or ''), ',' .. call .. '=', 1, true)
  return at and tonumber(string.match(told.calls, '^(%-?%d+),', at))
end

-- The same for the task of a slot, whose record is the ledger: only for as long as a call may be repeated.
local function task_tell_slot(id, state, call, answer)
  task_tell(id, state, call, answer)
  redis.call('ZADD', q.ended, int(now + TOMBSTONE_MS), id)
end

-- Whether the task was done by this attempt.
local function task_done_by(id, owner, fence)
  local slot, mine = string.find(id, '@', 1, true), ',"by":' .. quote(owner) .. ',"fence":' .. int(fence)
  local told = not slot and task_told(id)
  if told then return told.state == 'done' and string.sub(told.rest .. ',', 1, #mine + 1) == mine .. ',' end
  local entry = slot and redis.call('HGET', q.ledger.ledger, id)
  return entry and string.sub(entry, 1, 15) == '{"state":"done"' and string.find(entry, mine .. ',', 1, true) ~= nil
end

local function failure(kind, message)
  return '"failure":{"type":"' .. kind .. '","message":' .. quote(message) .. ',"traceback":null}'
end

-- Begin the next attempt: lease the task and, under overlap skip, its job's lock, with one fence for both. Returns the lease,
-- or nil and who holds the lock.
local function task_start(id, record, owner, token, lease_ms)
  local fence = mint(q.counter)
  if record.job and record.overlap == 'skip' then
    local name = 'job:' .. record.job
    local lock = lock_read(q.locks, name)
    if lock and lock.live then return nil, lock.owner end
    lock_grant(q.locks, name, lock, {fence = fence, ttl = lease_ms, calls = token, note = '-', owner = owner})
  end
  record.attempts, record.started, record.seq = record.attempts + 1, now, 0
  if (record.attempts == 1 and record.till > 0) or (record.max_duration_ms and (record.attempts == 1 or record.till == 0)) then
    task_until(id, record, record.max_duration_ms and now + record.max_duration_ms or 0)
  end
  task_write(id, record)
  tally('begun')
  return lease_grant(q.leases, fence, id, record.till > 0 and {freed = int(record.till), owner = owner} or nil, owner, token, lease_ms)
end

-- What the run did that others must see: its locks outlive their TTL, and workers are woken, once a run.
local function finish()
  lock_scatter(q.locks)
  if claimable then redis.call('PUBLISH', q.bell, message_task()) end
  for what, count in pairs(tallied) do redis.pcall('HINCRBY', q.stats, what, count) end
end

-- The attempt is over: its lease goes, and with it the job's lock, if the attempt took one.
local awaited
local function task_leave(id, lease)
  lease_drop(q.leases, id, lease)
  local job = string.match(id, '^(.*)@%-?%d+$')
  local name = job and 'job:' .. job
  local lock = name and attempt(lock_read, q.locks, name)
  if lock and lock.live and lock.owner == lease.owner and lock.calls == lease.token then
    lock_drop(q.locks, name, lock)
    if awaited == nil then awaited = redis.call('EXISTS', q.waiting.queue) == 1 end
    local handed = awaited and attempt(hand_off, q.waiting, q.counter, name, '')
    if handed then lock_grant(q.locks, name, nil, handed) end
  end
end

-- Tell who waits for the end of a task.
local any_awaited
local function task_announce(id)
  if any_awaited == nil then any_awaited = redis.call('EXISTS', q.awaited) == 1 end
  if not any_awaited then return end
  for _, member in ipairs(redis.call('ZRANGEBYLEX', q.awaited, '[' .. id .. '\255', '(' .. id .. '\255\255')) do
    redis.call('ZREM', q.awaited, member)
    redis.call('PUBLISH', string.sub(member, #id + 2), message_ended(id))
  end
end

-- A task has ended. Of a slot the ledger keeps what became of it; a spawned task stays, with its outcome, until its retention is
-- over, dead ones for a week.
local function task_end(id, record, state, by, fence, reason, more, call, answer)
  tally(state)
  task_announce(id)
  local dead = state == 'failed' or state == 'lost'
  if record.job then
    if redis.call('HGET', q.open, record.job) == id then redis.call('HDEL', q.open, record.job) end
    ledger_replace(q.ledger, id, ledger_entry(state, record.spawned, by, fence, record.attempts, record.started, now, reason))
    if not dead or redis.call('HEXISTS', q.ledger.ledger, id) == 0 then
      redis.call('HDEL', q.records, id)
      if call then task_tell_slot(id, state, call, answer) end
      return
    end
  end
  if record.till > 0 then
    task_until(id, record, 0)
    task_write(id, record)
  end
  task_tell(id, dead and 'dead' or state, call, answer, by, fence, more)
  redis.call('ZADD', q.ended, int(now + (dead and DEAD_MS or math.max(record.retention_ms, TOMBSTONE_MS))), id)
  if dead then redis.call('ZADD', q.dead, 0, task_dead_member(id, record, now)) end
end

-- The dead task of a slot waits again: the ledger says so, and under overlap skip it is the job's unfinished one.
local function task_reopen(id, record)
  local entry = string.gsub(redis.call('HGET', q.ledger.ledger, id) or '', '^{"state":"%a+"', '{"state":"retrying"', 1)
  ledger_replace(q.ledger, id, (string.gsub(entry, ',"ended":%d+', '', 1)))
  if record.overlap == 'skip' and redis.call('HEXISTS', q.open, record.job) == 0 then redis.call('HSET', q.open, record.job, id) end
  redis.call('ZADD', q.ended, int(now + TOMBSTONE_MS), id)
end

-- Which limit a task has met whose UNTIL is over.
local function task_limit(record)
  return record.attempts == 0 and 'max_delay: nobody began it in time' or 'max_duration: it had not ended in time'
end

-- End a task that may be running. The attempt keeps its lease until its body has stopped: so long nothing starts beside it.
local function task_cancel(id, record, lease, reason, call)
  task_unqueue(id, record)
  if not record.job then task_write(id, record) end
  task_end(id, record, 'cancelled', lease and lease.owner, lease and lease.fence, reason, failure('Cancelled', reason), call, RESULT.DONE)
  if lease then
    lease.freed = 'cancelled'
    lease_put(q.leases, id, lease)
    redis.call('PUBLISH', q.bell, message_cancel(id))
  end
end

-- delay after attempt n = base * factor^(n-1), capped; a power too large for a number is infinite, and so the cap.
-- Jitter lengthens it, so that what failed together does not come back together: by a share that id and attempt decide, as a
-- repeated call must find the same. Steps of the golden ratio spread ids that follow each other evenly.
local function retry_delay(id, retry, attempt)
  if type(retry) ~= 'table' then return 0 end
  local seconds
  if retry.type == 'fixed' then
    seconds = retry.seconds
  elseif retry.base == 0 then
    return 0
  else
    seconds = math.min(retry.base * retry.factor ^ (attempt - 1), type(retry.max) == 'number' and retry.max or 315619200)
  end
  local sum = attempt
  for at = 1, #id do sum = (sum * 31 + string.byte(id, at)) % 65521 end
  return seconds * 1000 * (1 + (type(retry.jitter) == 'number' and retry.jitter or 0) * (sum * 40503 % 65521) / 65521)
end

-- An attempt failed, or its owner is gone. Another, after the policy's delay or at `retry_at`; or the end, with the reason.
-- Returns when it is retried; DEAD: its attempts are used up; CANCELLED: a retry would come too late.
local function task_failed(id, record, state, lease, reason, retry_at, more, call)
  if record.attempts >= record.max then
    task_end(id, record, state, lease.owner, lease.fence, reason, more, call, RESULT.DEAD)
    return RESULT.DEAD
  end
  local due = math.ceil(math.max(retry_at or now + retry_delay(id, record.retry, record.attempts), now))
  if record.till > 0 and due >= record.till then
    task_end(id, record, 'cancelled', lease.owner, lease.fence, 'max_duration: a retry would come too late', more, call, RESULT.CANCELLED)
    return RESULT.CANCELLED
  end
  tally('retried')
  task_queue(id, record, due)
  if record.job then
    ledger_replace(q.ledger, id,
      ledger_entry('retrying', record.spawned, lease.owner, lease.fence, record.attempts, record.started, nil, reason))
    if call then task_tell_slot(id, 'waiting', call, due) end
  else
    task_tell(id, 'waiting', call, due, lease.owner, lease.fence, more)
  end
  return due
end

-- Take back an attempt whose owner will not end it: `reason` says why.
local EXPIRED = 'its lease was not renewed in time: the instance died, was frozen or cut off, one C call held its interpreter, or it ran on after its timeout'
local function task_lost(id, lease, reason, retry_at)
  counter_read(q.counter)  -- or it loses its lease, and does not get back into its queue
  local record = lease.freed ~= 'cancelled' and task_read(id)
  task_leave(id, lease)
  if record then task_failed(id, record, 'lost', lease, reason, retry_at, failure('Lost', reason)) end
end

-- Under overlap skip, at the next slot: the job's task makes way, unless it runs or is to be tried again. Returns why it does not;
-- or nil, and the place in the queue of one that no worker had begun: the latest slot is to run, and not the one that waited longest.
local function task_make_way(id, owner)
  local record, lease = task_read(id), lease_read(q.leases, id)
  if record and record.attempts == 0 and record.started == 0 and record.seq > 0 then
    task_unqueue(id, record)
    task_end(id, record, 'missed', nil, nil, 'no worker began it before the next was due')
    return nil, record.due
  end
  if lease and not lease.live and lease.owner ~= owner then  -- the sweep has too much to do, or its index was lost
    task_lost(id, lease, EXPIRED)
    record, lease = task_read(id), nil
  end
  if record and (lease or record.seq > 0) then return id .. ' had not ended' end
  -- Keys were evicted, or deleted by hand: nothing else will ever end it.
  if record then task_end(id, record, 'lost', nil, nil, 'its lease was deleted') end
end

-- The attempts of an owner that these calls began and that are live: {id, lease}, ...; and the id to go on from, where `most_ms` was
-- over before all of its leases were looked at. In pages: one HMGET is far cheaper than five hundred HGETs.
local function task_begun_by(owner, calls, after, most_ms)
  local found, low, high = {}, (after == '' and '[' or '(') .. owner .. '\255' .. after, '(' .. owner .. '\255\255'
  for _ = 1, 40 do  -- a worker has room for 10,000
    local ids = redis.call('ZRANGEBYLEX', q.leases.owned, low, high, 'LIMIT', 0, 500)
    if #ids == 0 then break end
    low = '(' .. ids[#ids]
    for i, member in ipairs(ids) do ids[i] = string.sub(member, #owner + 2) end
    local values = redis.call('HMGET', q.leases.leases, unpack(ids))
    for i, id in ipairs(ids) do
      local token = values[i] and string.match(values[i], '^%S+ %d+ (%S+)')
      local lease = token and calls[token] and attempt(lease_read, q.leases, id)
      if lease and lease.live and lease.owner == owner and lease.freed ~= 'cancelled' then found[#found + 1] = {id, lease} end
    end
    if #ids < 500 then break end
    if spent() > most_ms then return found, ids[#ids] end
  end
  return found
end

-- Whether it has ended, and its retention is over: what is left of it is for repeated calls only. Not while a cancelled body
-- has yet to stop.
local function task_over(id, record)
  if redis.call('HEXISTS', q.leases.leases, id) == 1 then return false end
  local told = redis.call('ZSCORE', q.ended, id) and task_told(id)
  return told and told.ended + (told.state == 'dead' and DEAD_MS or record.retention_ms) <= now
end

local function task_forget(id)
  local told = attempt(task_told, id)
  if string.find(id, '@', 1, true) and not (told and told.state == 'dead') then
    redis.call('HDEL', q.outcomes, id)
    redis.call('ZREM', q.ended, id)
    return
  end
  if told and told.state == 'dead' then
    local record = attempt(task_read, id)
    if record then redis.call('ZREM', q.dead, task_dead_member(id, record, told.ended)) end
  end
  task_announce(id)
  redis.call('HDEL', q.records, id)
  redis.call('HDEL', q.params, id)
  redis.call('HDEL', q.results, id)
  redis.call('HDEL', q.outcomes, id)
  redis.call('ZREM', q.ended, id)
end

-- The dead task of a slot is kept for a retry, as long as the ledger has its entry.
ledger_dropped = function(id)
  local told = attempt(task_told, id)
  if told and told.state == 'dead' then task_forget(id) end
end

-- What lies further ahead than it can, since the clock was set back: leases, limits, and what has ended. Looked for at the far
-- end of each index.
local function task_settle(most)
  lease_settle(q.leases, most)
  for _, id in ipairs(redis.call('ZRANGE', q.untils, -1, -1)) do
    local record = attempt(task_read, id)
    local since = record and math.max(record.started, record.spawned) or 0
    if since > now + SET_BACK_MS and record.till > 0 then
      task_until(id, record, now + math.max(record.till - since, 0))
      record.started, record.spawned = math.min(record.started, now), math.min(record.spawned, now)
      task_write(id, record)
      local lease = attempt(lease_read, q.leases, id)
      if lease and tonumber(lease.freed) then
        lease.freed = int(record.till)
        lease_put(q.leases, id, lease)
      end
    end
  end
  for _, id in ipairs(redis.call('ZRANGE', q.ended, -1, -1)) do attempt(task_told, id) end
end

-- What time has brought, up to `most` of each: attempts whose owners let them expire, tasks that were to have begun or ended by
-- now, and ended ones to forget. What can't be read stands in nobody's way: with `aside` it is listed in `strange`, and looked at
-- again in a while. `spares`: the attempts of the caller's own, whose bodies still run, are not taken back, though a clock that was
-- set forward or a process that stood still let their leases run out. `ids`: these, `count` of them; `process`: all that were begun
-- by calls whose ids begin so. Sets `met` if it met any.
local strange, backlog = {}, false
local function task_sweep(most, aside, spares)
  task_settle(most)
  local function look(index, see_to, more)
    local ids = redis.call('ZRANGEBYSCORE', index, '-inf', int(now), 'LIMIT', 0, most + more)
    backlog = backlog or #ids == most + more
    for at, id in ipairs(ids) do
      if at > 8 + more and spent() > SWEEP_MS then
        backlog = true
        return
      end
      local _, problem = attempt(see_to, id)
      if problem and aside then
        redis.call('ZADD', index, int(now + ASIDE_MS), id)
        strange[#strange + 1] = problem
      end
    end
  end
  look(q.leases.live, function(id)
    local lease = lease_read(q.leases, id)
    if spares.ids[id] or (lease and spares.process and string.sub(lease.token, 1, #spares.process) == spares.process) then
      spares.met = true
    elseif lease then
      task_lost(id, lease, EXPIRED)
    else
      redis.call('ZREM', q.leases.live, id)
    end
  end, spares.count)
  look(q.untils, function(id)
    local record = task_read(id)
    if record and record.till > 0 then
      task_cancel(id, record, lease_read(q.leases, id), task_limit(record))
    end
    redis.call('ZREM', q.untils, id)
  end, 0)
  look(q.ended, function(id)
    if redis.call('HEXISTS', q.leases.leases, id) == 0 or string.find(id, '@', 1, true) then
      task_forget(id)
    else
      redis.call('ZADD', q.ended, int(now + TOMBSTONE_MS), id)  -- cancelled, and its body has yet to stop
    end
  end, 0)
end
