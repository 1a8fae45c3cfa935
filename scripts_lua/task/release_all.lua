-- task/release_all: take back what an owner that is gone had claimed, up to `limit` at a time, as if its leases had expired.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  owner         str
-- ARGV[2]  call          id      of this call; the same again is the same call, repeated
-- ARGV[3]  limit         int
--
-- Returns  {released, more, *unreadable}  more is 1 when some are left: ask again; unreadable: see _lib/clock
--
-- O(owned), by the owner's own index.
-- Under OOM: runs.
-- Rarely: attempt_hand_over task_failed task_stopped record_set_back event_keep unreadable
-- include: _lib/sweep

local owner, call, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local said = reply_of(q.replies, call)
if said then
  local before, more = string.match(said, '^(%d+) (%d)$')
  return {tonumber(before), tonumber(more)}
end

local released, more, handled, left = 0, 0, 0, {}

local function take_back(t, key)
  local lease = lease_read(t, key)
  if not lease or lease.owner ~= owner then return leave(t.owned, owner .. '\255' .. key) end
  local id = t == q.leases and key or lease_task(key, lease)
  if not id then return end  -- a lock, which ends by verbs of its own
  local record = task_read(id)
  handled = handled + 1
  if not record or not is_at(record, owner, lease.fence) then return lease_drop(t, key, lease) end
  task_lost(id, record, REASON.RELEASED, now)
  if lease.live then released = released + 1 end
end

for _, t in ipairs({q.leases, q.locks}) do
  local last = ''
  for _ = 1, 20 do
    local keys = lease_owned(t, owner, limit, last)
    lease_gather(t, keys)
    for _, key in ipairs(keys) do
      local _, problem = attempt(take_back, t, key)
      left[#left + 1] = problem
    end
    last = keys[#keys]
    if #keys < limit then break end
    if handled >= limit then
      more = 1
      break
    end
  end
end
write(q.replies, call, released .. ' ' .. more)
return {released, more, unpack(left)}
