-- lock/renew: set the time left of each lock anew, for its live owner only; an expired lock is never revived.
--
-- KEYS[1] lock        hash  the locks, see _lib/lease1
-- KEYS[2] lock:owned  zset
-- KEYS[3] fence       string
-- ARGV[1] key         str
-- ARGV[2] owner       str
-- ARGV[3] token       id    of the call that took the lock; "TOKEN+": also if its owner took it again; "-": whichever
-- ARGV[4] ttl_ms      int
-- Batch: ARGV[1..4] repeat, one group a call, at most 256 a run.
--
-- Returns  expires_at_ms  renewed
--          0              not held by this owner: expired, missing, or another's
-- Under OOM: runs.
-- include: _lib/lease1

local t = {leases = KEYS[1], owned = KEYS[2]}
local furthest = now

local out = each(4, function(i)
  local key, token = ARGV[i], ARGV[i + 2]
  local lease = lease_read(t, key)
  local expires = 0
  if lease and lease.live and lease.owner == ARGV[i + 1] and lease_taken_by(lease, token) then
    expires = now + tonumber(ARGV[i + 3])
    lease.expires = expires
    lease_put(t, key, lease)
    furthest = math.max(furthest, expires)
  end
  return expires
end)

if furthest > now then lease_keep(t, KEYS[3], furthest + TOMBSTONE_MS) end
return out
