-- task/claim: begin an attempt of up to `limit` tasks of a queue, after taking back what expired.
--
-- KEYS[1]  task          hash    the tasks, see _lib/task
-- KEYS[2]  task:ready    zset
-- KEYS[3]  task:delayed  zset
-- KEYS[4]  task:lease    hash    their leases, see _lib/lease
-- KEYS[5]  task:live     zset
-- KEYS[6]  task:owned    zset
-- KEYS[7]  job:open      hash
-- KEYS[8]  ledger        hash    what became of each slot, see _lib/ledger
-- KEYS[9]  ledger:order  zset
-- KEYS[10] fence         string  the last fence of this shard
-- KEYS[11] lock          hash    a running job's lock is one of these
-- KEYS[12] lock:owned    zset
-- KEYS[13] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[14] lock:waiters  hash
-- KEYS[15] bell          channel  rung when a task can be claimed
-- ARGV[1]  queue         str
-- ARGV[2]  owner         str
-- ARGV[3]  call          id      of this call; the same again is the same call, repeated
-- ARGV[4]  limit         int
-- ARGV[5]  lease_ms      int
-- ARGV[6]  lost          json    ids of calls whose replies were lost: begin with what they had started
-- ARGV[7]  strangers     json    names of functions that the caller lacks: their tasks are passed over
--
-- Returns  {now_ms, wake_ms, {id, record, attempt, fence, expires_at_ms}, ...}  wake_ms: when there may be more without anybody
--          saying so; 0: never
--
-- Order: priority, then due time, then the order in which they came.
-- include: _lib/lease _lib/waiting _lib/ledger _lib/task

local queue, owner, call, limit, lease_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local out, strangers, passed = {now, 0}, {}, 0
for _, name in ipairs(cjson.decode(ARGV[7])) do strangers[name] = true end

local function claimed(id, record, lease)
  out[#out + 1] = {id, record.json, record.attempts, lease.fence, lease.expires}
end

if ARGV[6] ~= '[]' then
  local lost = {}
  for _, id in ipairs(cjson.decode(ARGV[6])) do lost[id] = true end
  for _, member in ipairs(redis.call('ZRANGEBYLEX', q.leases.owned, '[' .. owner .. '\255', '(' .. owner .. '\255\255', 'LIMIT', 0, 1000)) do
    local id = string.sub(member, #owner + 2)
    local lease = lease_read(q.leases, id)
    if lease and lease.live and lost[lease.token] then claimed(id, task_read(id), lease) end
  end
end

task_sweep(100)
local low = '[' .. queue .. '\255'
for _, member in ipairs(redis.call('ZRANGEBYLEX', q.delayed, low, '(' .. queue .. '\255' .. string.format('%015.0f', now + 1), 'LIMIT', 0, 200)) do
  local at = #queue + 2
  redis.call('ZREM', q.delayed, member)
  redis.call('ZADD', q.ready, 0, queue .. '\255' .. string.sub(member, at + 15, at + 16) .. string.sub(member, at, at + 14) .. string.sub(member, at + 17))
end

for _ = 1, limit + 200 do
  if #out - 2 >= limit then break end
  local member = redis.call('ZRANGEBYLEX', q.ready, low, '(' .. queue .. '\255\255', 'LIMIT', passed, 1)[1]
  if not member then break end
  local id = string.sub(member, #queue + 2 + 33)
  local record = task_read(id)
  if record and strangers[record.name] then
    passed = passed + 1
  else
    redis.call('ZREM', q.ready, member)
  end
  local window, slot = record and record.window_ms or -1, tonumber(string.match(id, '@(%-?%d+)$'))
  if record and record.attempts == 0 and window >= 0 and slot and now - slot > window then
    task_end(id, record, 'missed', nil, nil, 'no worker began it within ' .. window .. ' ms')
  elseif record and not strangers[record.name] then
    local lease, holder = task_start(id, record, owner, call, record.lease_ms or lease_ms)
    if lease then
      if record.job then
        ledger_replace(q.ledger, id, ledger_entry('fired', record.fired, owner, lease.fence, record.attempts, now))
      end
      claimed(id, record, lease)
    else
      task_end(id, record, 'skipped', nil, nil, 'overlap: the job\'s lock is held by ' .. holder)
    end
  end
end

local wake = 0
local delayed = redis.call('ZRANGEBYLEX', q.delayed, low, '(' .. queue .. '\255\255', 'LIMIT', 0, 1)[1]
if delayed then wake = tonumber(string.sub(delayed, #queue + 2, #queue + 16)) end
local expiring = redis.call('ZRANGE', q.leases.live, 0, 0, 'WITHSCORES')[2]
if expiring and (wake == 0 or tonumber(expiring) < wake) then wake = tonumber(expiring) end
out[2] = wake
task_finish()
return out
