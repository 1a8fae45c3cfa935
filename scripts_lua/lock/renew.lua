-- lock/renew: set the time left of each lock anew, for its live owner only; an expired lock is never revived.
--
-- KEYS[1] lock        hash  the locks, see _lib/lease
-- KEYS[2] lock:live   zset
-- KEYS[3] lock:owned  zset
-- ARGV[1] key         str
-- ARGV[2] owner       str
-- ARGV[3] token       id    of the call that took the lock; "TOKEN+": also if its owner took it again; "-": whichever
-- ARGV[4] ttl_ms      int
-- Batch: ARGV[1..4] repeat, one group a call, at most 256 a run.
--
-- Returns  expires_at_ms  renewed
--          0              not held by this owner: expired, missing, or another's
-- Under OOM: runs.
-- include: _lib/lock

local t = lock_table(KEYS[1], KEYS[2], KEYS[3])
local keys = {}
for i = 1, #ARGV, 4 do keys[#keys + 1] = ARGV[i] end
lock_gather(t, keys)
local out = each(4, function(i)
  local key, ttl = ARGV[i], tonumber(ARGV[i + 3])
  local lease = lock_read(t, key)
  if not (lease and lease.live and lease.owner == ARGV[i + 1] and lease.note == '-' and lease_taken_by(lease, ARGV[i + 2])) then return 0 end
  lease.ttl, lease.expires = ttl, now + ttl
  lock_put(t, key, lease)
  return lease.expires
end)
lock_scatter(t)
return out
