-- _lib/calling: slots that somebody calls for. The newest in the ledger is where such a job stands.
-- needs: _lib/firing _lib/pause

-- The newest slot of a job that has come, or -1. What lies ahead was entered before the clock was set back.
local function calling_newest(job)
  scatter(q.order)
  local high = '[' .. ledger_member(job, now + 100)
  local member = redis.call('ZREVRANGEBYLEX', q.order[KEY], high, '[' .. job .. '\255', 'LIMIT', 0, 1)[1]
  return member and tonumber(string.sub(member, #job + 2)) or -1
end

-- What a call is answered, and what its repetition is: SAID, and what it is about.
local function calling_say(call, said, of, lease)
  write(q.replies, call, int(said) .. ' ' .. of)
  return {said, lease and lease.fence or 0, lease and lease.expires or 0, now, of}
end

-- The answer that this very call was given before; nil: none.
local function calling_told(call, owner)
  local told, of = string.match(reply_of(q.replies, call) or '', '^(%-?%d+) (.*)$')
  if not told then return nil end
  local mine = tonumber(told) == RESULT.STARTED and firing_repeated(of, owner, call)
  if mine then return {RESULT.STARTED, mine.fence, mine.expires, now, of} end
  return {tonumber(told) == RESULT.STARTED and RESULT.EXPIRED or tonumber(told), 0, 0, now, of}
end

-- Why a task of the job can't begin now, and what is in its way; nil: it can. `id`: the slot's own.
local function calling_overlap(job, id, owner)
  local open = line_of(job)
  local last = open and open ~= id and task_unfinished(open, owner)
  if last and last.state == 'waiting' then
    task_give_way(open, last)  -- somebody retries it, and nobody calls for that slot any more
  elseif last then
    return REASON.OVERLAP, open
  end
  local held = lease_read(q.locks, 'job:' .. job)
  if held and held.live then return REASON.LOCK_HELD, held.owner end
end

-- Begin the attempt. Returns its lease; or nil and who was given the lock, for which they waited.
local function calling_start(id, record, owner, call, lease_ms, again)
  task_unqueue(id, record)
  local lease, holder = task_start(id, record, owner, call, lease_ms)
  if not lease and again then task_queue(id, record, now) end
  return lease, holder
end

-- By whom a job is paused, and why; nil: it is not, or not any more.
local function calling_paused(paused, changes, job)
  local line = read(paused, job)
  if not line then return nil end
  local _, _, ends, by, why = change_parse(paused, job, line)
  if ends == 0 or ends > now then return why == '' and by or by .. ': ' .. why end
  erase(paused, job)
  change_note(changes, job, change_text('resume', now, 0, '', ''))
end
