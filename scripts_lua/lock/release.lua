-- lock/release: give each lock back if this owner holds it, and hand it to the first who waits.
--
-- KEYS[1] lock          hash    the locks, see _lib/lease
-- KEYS[2] lock:live     zset
-- KEYS[3] lock:owned    zset
-- KEYS[4] fence         string  the last fence of this shard
-- KEYS[5] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[6] lock:waiters  hash
-- KEYS[7] reply:0       hash    see _lib/reply
-- KEYS[8] reply:1       hash
-- KEYS[9] reply:2       hash
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
-- Rarely: hand_off waiter_leave lock_grant lease_untake
-- include: _lib/lock _lib/waiting _lib/reply

local t, w = lock_table(KEYS[1], KEYS[2], KEYS[3]), {queue = KEYS[5], waiters = KEYS[6]}
local replies = reply_table(KEYS[7], KEYS[8], KEYS[9])
local keys = {}
for i = 1, #ARGV, 4 do keys[#keys + 1] = ARGV[i] end
lock_gather(t, keys)
local queued = redis.call('EXISTS', w.queue) == 1

local out = each(4, function(i)
  local key, owner, token, call = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local lease = lock_read(t, key)
  if queued and token ~= '-' then waiter_leave(w, key, token) end
  local mine = lease and lease.live and lease.owner == owner and lease.note == '-'
  if mine and (lease_taken_by(lease, token) or token == '=' .. int(lease.fence)) then
    lock_drop(t, key, lease)
    local handed = queued and attempt(hand_off, w, KEYS[4], key, '')
    if handed then lock_grant(t, key, nil, handed) end
    reply_put(replies, call, '1')
    return 1
  end
  if reply_of(replies, call) then return 1 end
  if mine and lease_untake(lease, token) then lock_put(t, key, lease) end
  return 0
end)

lock_scatter(t)
reply_close(replies)
return out
