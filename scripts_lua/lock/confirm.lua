-- lock/confirm: renew for each waiter what a hand-off has given it, where the store is too full for lock/try_acquire.
--
-- KEYS[1] lock        hash  the locks, see _lib/lease1
-- KEYS[2] lock:owned  zset
-- KEYS[3] fence       string
-- ARGV[1] key         str
-- ARGV[2] owner       str
-- ARGV[3] token       id    of the call by which it waits
-- ARGV[4] ttl_ms      int
-- Batch: ARGV[1..4] repeat, one group a call, at most 256 a run.
--
-- Returns  {fence, expires_at_ms}  held under that token
--          {0, 0}                  not, or no longer
-- Under OOM: runs.
-- include: _lib/lease1

local t = {leases = KEYS[1], owned = KEYS[2]}
local furthest = now

local out = each(4, function(i)
  local key = ARGV[i]
  local lease = lease_read(t, key)
  if not (lease and lease.live and lease.owner == ARGV[i + 1] and lease.token == ARGV[i + 2]) then return {0, 0} end
  lease.expires = now + tonumber(ARGV[i + 3])
  lease_put(t, key, lease)
  furthest = math.max(furthest, lease.expires)
  return {lease.fence, lease.expires}
end)

if furthest > now then lease_keep(t, KEYS[3], furthest + TOMBSTONE_MS) end
return out
