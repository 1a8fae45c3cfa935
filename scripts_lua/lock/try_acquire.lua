-- lock/try_acquire: take each lock that is free and mint its fence; the same owner keeps the one it has.
--
-- KEYS[1] lock          hash    the locks, see _lib/lease
-- KEYS[2] lock:live     zset
-- KEYS[3] lock:owned    zset
-- KEYS[4] fence         string  the last fence of this shard
-- KEYS[5] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[6] lock:waiters  hash
-- ARGV[1] key           str
-- ARGV[2] owner         str
-- ARGV[3] token         id      of this call; the same again is the same call, repeated
-- ARGV[4] ttl_ms        int
-- ARGV[5] reentrant     int     1: the live owner may take it again; 0: handles of one owner exclude each other
-- ARGV[6] channel       str     where to be told of the hand-off; empty: do not wait
-- Batch: ARGV[1..6] repeat, one group a call, at most 128 a run.
--
-- Returns  {fence, expires_at_ms, now_ms}      held by this owner now
--          {fence=0, wait_ms, now_ms, joined}  held by another, who must renew or give it up within wait_ms; joined is 1 when this
--                                              call entered the queue: if it was made before, it had lost its place there
--
-- Test and set are one script: celers' GET, then SET, let two owners win. A lock that is free while others wait goes to
-- the first of them, never to a newcomer.
-- Rarely: hand_off waiter_join waiter_leave lease_retake
-- include: _lib/lock _lib/waiting

local t, w, counter = lock_table(KEYS[1], KEYS[2], KEYS[3]), {queue = KEYS[5], waiters = KEYS[6]}, KEYS[4]
local keys = {}
for i = 1, #ARGV, 6 do keys[#keys + 1] = ARGV[i] end
lock_gather(t, keys)
local queued = redis.call('EXISTS', w.queue) == 1

local out = each(6, function(i)
  local key, owner, token, ttl, channel = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 5]
  local lease = lock_read(t, key)
  if queued and not (lease and lease.live) then
    local handed = hand_off(w, counter, key, token)
    if handed then lease = lock_grant(t, key, lease, handed) end
  end
  if not (lease and lease.live) then
    local fence = mint(counter)
    if queued then waiter_leave(w, key, token) end
    lease = lock_grant(t, key, lease, {fence = fence, ttl = ttl, calls = token, note = '-', owner = owner})
    return {fence, lease.expires, now}
  elseif lease_took(lease, token) or (ARGV[i + 4] == '1' and lease.owner == owner and lease.note == '-') then
    -- Undoing one cancelled call, this or another, does not release what the owner has by both.
    lease_retake(lease, token)
    lease.ttl, lease.expires = ttl, now + ttl
    lock_put(t, key, lease)
    return {lease.fence, lease.expires, now}
  end
  if lease.mended then lock_put(t, key, lease) end
  local joined = channel ~= '' and waiter_join(w, counter, key, token, ttl, channel, owner)
  queued = queued or channel ~= ''
  return {0, lease.expires - now, now, joined and 1 or 0}
end)

lock_scatter(t)
-- More than were taken, so that what has expired goes faster than it comes; a look by every fourth run is enough.
if time[2] % 4 == 0 then
  local most = 4 * #out + 4
  -- Where many attempts wait for a sweep, a look anywhere finds the locks among them.
  if lock_forget(t, most, 0) then lock_forget(t, most, time[2] % redis.call('ZCOUNT', t.live, '-inf', int(now))) end
end
if queued then
  local until_ms = int(math.max(tonumber(t.horizon or nil) or 0, now + 60000))
  redis.call('PEXPIREAT', w.queue, until_ms)
  redis.call('PEXPIREAT', w.waiters, until_ms)
end
return out
