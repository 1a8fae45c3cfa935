-- task/release_all: take back what an owner that is gone had claimed, up to `limit` at a time, as if its leases had expired.
--
-- KEYS[1..24] of _lib/task
-- KEYS[25] reply:CALL    string  PX: what this call answered, for when it is repeated
-- ARGV[1]  owner         str
-- ARGV[2]  limit         int
--
-- Returns  {released, more, *unreadable}  more is 1 when some are left: ask again; unreadable: see _lib/lease1
--
-- O(owned), by the owner's own index.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local owner, limit = ARGV[1], tonumber(ARGV[2])
local said = redis.call('GET', KEYS[25])
if said then
  local before, more = string.match(said, '^(%d+) (%d)$')
  return {tonumber(before), tonumber(more)}
end

local ids, released, left = lease_owned(q.leases, owner, limit), 0, {}
for _, id in ipairs(ids) do
  local lease, problem = attempt(lease_read, q.leases, id)
  local _, unread
  if lease and lease.owner == owner then
    _, unread = attempt(task_lost, id, lease, 'all leases of its owner were released', now)
    if lease.live and not unread then released = released + 1 end
  end
  problem = problem or unread
  if problem then
    left[#left + 1] = problem
  elseif not lease or lease.owner ~= owner then
    redis.call('ZREM', q.leases.owned, owner .. '\255' .. id)
  end
end
local more = #ids == limit and #left < limit and 1 or 0
redis.call('SET', KEYS[25], released .. ' ' .. more, 'PX', TOMBSTONE_MS)
return {released, more, unpack(left)}
