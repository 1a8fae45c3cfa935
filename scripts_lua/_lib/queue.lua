-- _lib/queue: taking tasks from queues in turn.
--
-- Strangers (tasks whose functions the caller lacks) stay where they are: others may be there for them, and only lack room for
-- the moment. Where many stand at the head of a queue, the caller goes on behind them in its next call.
-- needs: _lib/sweep

local PILE = 100
local HELD_MS = 1000  -- when what is tried again looks at its job's lock again
local MOST_STAY = 100  -- so many wait in line that give way to no slot
local CLAIM_MS = 3

-- When the next of a queue comes due. What is no member of ours is due at once: it goes as one whose task has gone, and hides none.
local function queue_wake(queue)
  local delayed = range(q.delayed, '[' .. queue .. '\255', '(' .. queue .. '\255\255', 1)[1]
  return delayed and (tonumber(string.sub(delayed, #queue + 2, #queue + 16)) or 0)
end

-- What has come due in a queue can be claimed.
local function queue_promote(queue, most)
  local at = #queue + 2
  local high = '(' .. queue .. '\255' .. string.format('%015.0f', now + 1)
  for _, member in ipairs(range(q.delayed, '[' .. queue .. '\255', high, most)) do
    leave(q.delayed, member)
    enter(q.ready, queue .. '\255' .. string.sub(member, at + 15, at + 16) .. string.sub(member, at, at + 14) .. string.sub(member, at + 17), 0)
  end
end

-- Put off before the clock was set back, so for years perhaps: it is due as long from now as it was from then. Then is its number,
-- which may be later, as numbers never go back. So what is known of the task has to lie ahead as well, or it was put off since.
local function queue_settle(queue, most)
  local low, high, at, ids = '[' .. queue .. '\255', '(' .. queue .. '\255\255', #queue + 2, {}
  scatter(q.delayed)
  local members = redis.call('ZREVRANGEBYLEX', q.delayed[KEY], high, low, 'LIMIT', 0, most)
  for i, member in ipairs(members) do
    if (tonumber(string.sub(member, at + 17, at + 32)) or math.huge) / 1000 <= now + SET_BACK_MS then break end
    ids[i] = string.sub(member, at + 33)
  end
  gather(q.tasks, ids)
  for i, id in ipairs(ids) do
    local record, problem = attempt(task_read, id)
    local since = record and waits_since(record) or 0
    if not problem and (not record or record.state ~= 'waiting') then
      leave(q.delayed, members[i])
    elseif since > now + SET_BACK_MS and record.due >= since then
      local seq, due_ms = tonumber(string.sub(members[i], at + 17, at + 32)) / 1000, record.due
      leave(q.delayed, members[i])
      until_settle(id, record)
      waits_from_now(record)
      task_queue(id, record, now + due_ms - (seq <= due_ms and seq or since))
    end
  end
end

-- It was its turn in its queue, and the job's lock is held, or another task of the job has yet to end. Skipped, it could not be a second time:
-- it waits in line. Where nobody is at work or leads it looks at the lock again; so do those that are too many for the line.
local function queue_wait(id, record)
  local job = guard_of(id)
  local key = 'job:' .. job
  local lease = lease_read(q.locks, key)
  local other = lease and lease.live and lease_task(key, lease)
  if other then line_take(job, other) end
  local open, slots = line_of(job)
  if line_has(job, id) then return end  -- it led
  local first = open and open ~= id and task_read(open)
  local waits = first and (first.state == 'waiting' or first.state == 'running' or first.state == 'stopping')
  if waits and #slots - #line_own(job, slots) < MOST_STAY then return line_wait(job, id, record) end
  if not waits then line_lead(job, id, slots) end
  task_queue(id, record, now + HELD_MS)
end

-- The task is next in its queue: begin an attempt. Returns its lease; nil: it has ended instead, or is none.
local function queue_begin(id, record, owner, call, lease_ms)
  if not record or record.state ~= 'waiting' then return nil end
  if record.till > 0 and record.till <= now then
    task_cancel(id, record, task_limit(record))
    return nil
  end
  local said, _, slot = policies(id, record), job_of(id)
  local window, fresh = said.window_ms or -1, record.tries == '' and record.code ~= REASON.BUFFERED and not said.backfill and not record_is_again(record)
  record.seq = 0
  if fresh and window >= 0 and slot and now - slot > window then
    task_end(id, record, 'missed', REASON.NOT_BEGUN_WITHIN, int(window))
    return nil
  end
  -- What somebody has tried again may come while another leads, which runs still (though its lease has expired), or has yet to begin.
  local job = said.overlap ~= 'allow' and record_is_again(record) and guard_of(id)
  local open = job and line_of(job)
  local first = open and open ~= id and task_read(open)
  if first and (first.state == 'running' or first.state == 'stopping') then return queue_wait(id, record) end
  local lease, holder = task_start(id, record, owner, call, said.lease_ms or lease_ms)
  if lease then
    if job then line_take(job, id) end
    return lease
  end
  if fresh and slot then
    task_end(id, record, 'skipped', REASON.LOCK_HELD, holder)
  else
    queue_wait(id, record)
  end
end

-- One of which something can't be read stands in nobody's way: it is looked at again in a while.
local function queue_aside(queue, member)
  local at = #queue + 2
  leave(q.ready, member)
  enter(q.delayed, queue .. '\255' .. string.format('%015.0f', now + ASIDE_MS) .. string.sub(member, at, at + 1) .. string.sub(member, at + 17), 0)
end

-- Where a run stands in a queue: `after` (or nil) is where the caller got to before.
local function queue_line(queue, after)
  if set_back() then queue_settle(queue, 20) end
  local wake = queue_wake(queue)
  if wake and wake <= now then
    queue_promote(queue, spent() < SWEEP_MS and 100 or 8)
    wake = queue_wake(queue)
  end
  local low = after and '(' .. queue .. '\255' .. after or '[' .. queue .. '\255'
  return {queue = queue, low = low, high = '(' .. queue .. '\255\255', after = after, passed = 0, members = {}, at = 0, wake = wake}
end

-- The next members of a line, and what is known of their tasks.
local function queue_more(line, most)
  line.members, line.at = range(q.ready, line.low, line.high, most, line.passed), 1
  local ids = {}
  for i, member in ipairs(line.members) do ids[i] = string.sub(member, #line.queue + 2 + 33) end
  attempt_gather(ids, true)
end

-- Begin the first task of the queue that is no stranger, looking at no more than `by.looks` of them. Returns id, record and lease, or nil.
local function queue_take(line, by)
  while line.passed < PILE and by.looks > 0 and (by.looks > by.least or spent() < CLAIM_MS) do
    line.at, by.looks = line.at + 1, by.looks - 1
    if line.at > #line.members then queue_more(line, by.page) end
    local member = line.members[line.at]
    if not member then return nil end
    local id = string.sub(member, #line.queue + 2 + 33)
    local record, problem = attempt(task_read, id)
    local name
    if record then name, problem = attempt(function() return policies(id, record).name end) end
    if name and by.strangers[name] then
      line.passed, line.after = line.passed + 1, string.sub(member, #line.queue + 2)
    else
      local lease
      if not problem then
        leave(q.ready, member)
        lease, problem = attempt(queue_begin, id, record, by.owner, by.call, by.lease_ms)
      end
      if lease then return id, record, lease end
      line.turned_away = true
      if problem then
        swept.strange[#swept.strange + 1] = problem
        queue_aside(line.queue, member)
      end
    end
  end
  by.more = true
end
