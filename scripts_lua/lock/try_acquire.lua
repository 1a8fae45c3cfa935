-- lock/try_acquire: take each lock that is free and mint its fence; the same owner keeps the one it has.
--
-- KEYS[1] lock          hash    the locks, see _lib/lease1
-- KEYS[2] lock:owned    zset
-- KEYS[3] fence         string  the last fence of this shard
-- KEYS[4] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[5] lock:waiters  hash
-- ARGV[1] key           str
-- ARGV[2] owner         str
-- ARGV[3] token         id      of this call; the same again is the same call, repeated
-- ARGV[4] ttl_ms        int
-- ARGV[5] reentrant     int     1: the live owner may take it again; 0: handles of one owner exclude each other
-- ARGV[6] channel       str     where to be told of the hand-off; empty: do not wait
-- Batch: ARGV[1..6] repeat, one group a call, at most 128 a run.
--
-- Returns  {fence, expires_at_ms, now_ms}  held by this owner now
--          {0, wait_ms, now_ms, joined}    held by another, who must renew or give it up within wait_ms; joined is 1 when this
--                                          call entered the queue: if it was made before, it had lost its place there
--
-- Test and set are one script: celers' GET, then SET, let two owners win. A lock that is free while others wait goes to
-- the first of them, never to a newcomer.
-- include: _lib/lease1 _lib/waiting

local t = {leases = KEYS[1], owned = KEYS[2]}
local counter = KEYS[3]
local w = {queue = KEYS[4], waiters = KEYS[5]}
local queued = redis.call('EXISTS', w.queue) == 1
local furthest = now

local out = each(6, function(i)
  local key, owner, token, ttl, channel = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 5]
  local lease = lease_read(t, key)
  if queued and not (lease and lease.live) then lease = hand_off(t, w, counter, key, lease, token) or lease_read(t, key) end
  local reply
  if not (lease and lease.live) then
    if queued then waiter_leave(w, key, token) end
    lease = lease_grant(t, mint(counter), key, lease, owner, token, ttl)
    reply = {lease.fence, lease.expires, now}
  elseif lease_took(lease, token) or (ARGV[i + 4] == '1' and lease.owner == owner) then
    -- Undoing one cancelled call, this or another, does not release what the owner has by both.
    lease_retake(lease, token)
    lease.expires = now + ttl
    lease_put(t, key, lease)
    reply = {lease.fence, lease.expires, now}
  else
    if lease.ahead then lease_put(t, key, lease) end
    local joined = channel ~= '' and waiter_join(w, counter, key, token, ttl, channel, owner)
    queued = queued or channel ~= ''
    reply = {0, lease.expires - now, now, joined and 1 or 0}
  end
  furthest = math.max(furthest, lease.expires)
  return reply
end)

lease_prune(t, #out)
lease_keep(t, counter, furthest + TOMBSTONE_MS)
if queued then
  redis.call('PEXPIREAT', w.queue, int(horizon))
  redis.call('PEXPIREAT', w.waiters, int(horizon))
end
return out
