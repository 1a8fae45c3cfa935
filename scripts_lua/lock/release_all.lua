-- lock/release_all: give back what an owner holds, up to `limit` at a time, handing each to the first who waits.
--
-- KEYS[1] lock          hash    the locks, see _lib/lease1
-- KEYS[2] lock:owned    zset
-- KEYS[3] fence         string  the last fence of this shard
-- KEYS[4] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[5] lock:waiters  hash
-- KEYS[6] reply:CALL    string  PX: what this call answered, for when it is repeated
-- ARGV[1] owner         str
-- ARGV[2] call          id      of this call; the same again is the same call, repeated
-- ARGV[3] limit         int     bounds the script's time; ask again while more is 1
--
-- Returns  {released, more, unreadable, ...}  live ones only are counted; more is 1 when some are left; unreadable: see _lib/lease1
--
-- The owner's own index makes this O(owned): nothing is scanned, and no other owner's lease is looked at.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/waiting

local t = {leases = KEYS[1], owned = KEYS[2]}
local w = {queue = KEYS[4], waiters = KEYS[5]}
local owner, call, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local said = redis.call('GET', KEYS[6])
if said then
  local released, more = string.match(said, '^(%d+) (%d)$')
  return {tonumber(released), tonumber(more)}
end

local queued = redis.call('EXISTS', w.queue) == 1
local keys, released, left = lease_owned(t, owner, limit), 0, {}
for _, key in ipairs(keys) do
  local lease, problem = attempt(lease_read, t, key)
  if problem then
    left[#left + 1] = problem
  elseif lease and lease.live and lease.owner == owner then
    lease_free(t, key, lease, call)
    if queued then attempt(hand_off, t, w, KEYS[3], key, lease, '') end
    released = released + 1
  else
    redis.call('ZREM', t.owned, owner .. '\255' .. key)
  end
end

local more = #keys == limit and #left < limit and 1 or 0
redis.call('SET', KEYS[6], released .. ' ' .. more, 'PX', TOMBSTONE_MS)
return {released, more, unpack(left)}
