-- lock/release: give each lock back if this owner holds it, and hand it to the first who waits.
--
-- KEYS[1] lock          hash    the locks, see _lib/lease1
-- KEYS[2] lock:owned    zset
-- KEYS[3] fence         string  the last fence of this shard
-- KEYS[4] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[5] lock:waiters  hash
-- ARGV[1] key           str
-- ARGV[2] owner         str
-- ARGV[3] token         id      of the call that took the lock; "TOKEN+": also if its owner took it again; "-": whichever;
--                               "=FENCE": whichever, of that fence, for somebody else's lock: not what its owner took since
-- ARGV[4] call          id      of this call; the same again is the same call, repeated
-- Batch: ARGV[1..4] repeat, one group a call, at most 128 a run.
--
-- Returns  1  it was held, and is released by this call
--          0  not held by this owner: expired, missing, or another's
--
-- A lock that its owner has taken by several calls is released when the last of them is undone.
-- A caller that still waits under the token leaves the queue, so one script ends whatever an acquire had begun.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting

local t = {leases = KEYS[1], owned = KEYS[2]}
local w = {queue = KEYS[4], waiters = KEYS[5]}
local queued = redis.call('EXISTS', w.queue) == 1
local out = each(4, function(i)
  local key, owner, token, call = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local lease = lease_read(t, key)
  local released = 0
  if queued and token ~= '-' then waiter_leave(w, key, token) end
  if lease and lease.live and lease.owner == owner and (lease_taken_by(lease, token) or token == '=' .. int(lease.fence)) then
    lease_free(t, key, lease, call)
    if queued then attempt(hand_off, t, w, KEYS[3], key, lease, '') end
    released = 1
  elseif lease and lease_freed_by(lease, call) then
    released = 1
  elseif lease and lease.live and lease.owner == owner and lease_untake(lease, token) then
    lease_put(t, key, lease)
  end
  return released
end)

return out
