-- _lib/lease: a table of leases and the one clock that judges them.
--
-- A table is three keys under one hash tag:
--   leases  hash  KEY -> "EXPIRES_MS FENCE TOKEN FREED OWNER"; EXPIRES_MS 0: released
--   live    zset  KEY by EXPIRES_MS, or by when its tombstone goes: what to sweep, oldest first
--   owned   zset  OWNER \255 KEY, all of score 0: what an owner holds, in O(owned). UTF-8 never holds byte 255.
-- TOKEN is the id of the call that took the lease, FREED the ids of the last calls that released it ("-": none): by them a
-- call that is repeated because its reply was lost finds its own first outcome, though others held the key meanwhile.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local TOMBSTONE_MS = 10000

-- tostring() writes 1e+15 for a fence.
local function int(number)
  return string.format('%.0f', number)
end

-- fence = max(last + 1, TIME in microseconds): the clock keeps it growing when the counter is lost to FLUSHALL, eviction
-- or failover, the counter when the clock stands still or steps back. A batch reserves in one write what it may mint, and no
-- more: a counter that ran ahead of the clock would go back when it is lost.
local minted, reserved = nil, 0
local function mint(counter)
  minted = (minted or math.max(tonumber(redis.call('GET', counter) or '0'), time[1] * 1000000 + time[2] - 1)) + 1
  if minted > reserved then
    reserved = minted + math.floor(#ARGV / 6)
    redis.call('SET', counter, int(reserved))
  end
  return minted
end

local function lease_read(t, key)
  local value = redis.call('HGET', t.leases, key)
  if not value then return nil end
  local expires, fence, token, freed, owner = string.match(value, '^(%d+) (%d+) (%S+) (%S+) (.*)$')
  expires = tonumber(expires)
  return {expires = expires, fence = tonumber(fence), token = token, freed = freed, owner = owner, live = expires > now}
end

local function lease_put(t, key, lease)
  redis.call('HSET', t.leases, key,
    int(lease.expires) .. ' ' .. int(lease.fence) .. ' ' .. lease.token .. ' ' .. lease.freed .. ' ' .. lease.owner)
  redis.call('ZADD', t.live, int(lease.expires), key)
end

-- Give the key to a new owner; `old` is what lease_read found, expired or released. Returns the lease.
local function lease_grant(t, fence, key, old, owner, token, ttl)
  if old and old.owner ~= owner then redis.call('ZREM', t.owned, old.owner .. '\255' .. key) end
  local lease = {expires = now + ttl, fence = fence, token = token, freed = old and old.freed or '-',
    owner = owner, live = true}
  lease_put(t, key, lease)
  redis.call('ZADD', t.owned, 0, owner .. '\255' .. key)
  return lease
end

-- Release what lease_read found live. The tombstone lets a repeated release find that it was the first; call "-": no repeat.
local function lease_free(t, key, lease, call)
  redis.call('ZREM', t.owned, lease.owner .. '\255' .. key)
  -- About eight ids. One that was cut in two lacks its comma, and is nobody's.
  if call ~= '-' then lease.freed = string.sub(call .. ',' .. lease.freed, 1, 160) end
  lease.expires, lease.live = 0, false
  redis.call('HSET', t.leases, key, '0 ' .. int(lease.fence) .. ' ' .. lease.token .. ' ' .. lease.freed .. ' ' .. lease.owner)
  redis.call('ZADD', t.live, int(now + TOMBSTONE_MS), key)
end

-- Whether this very call has released it before.
local function lease_freed_by(lease, call)
  return string.find(',' .. lease.freed, ',' .. call .. ',', 1, true) ~= nil
end

-- Forget a lease without a tombstone.
local function lease_drop(t, key, lease)
  redis.call('HDEL', t.leases, key)
  redis.call('ZREM', t.live, key)
  redis.call('ZREM', t.owned, lease.owner .. '\255' .. key)
end

-- Forget up to `most` leases that have ended: each call that adds one removes up to two, so the table stays bounded.
local function lease_prune(t, most)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', t.live, '-inf', int(now), 'LIMIT', 0, most)) do
    local lease = lease_read(t, key)
    if lease then lease_drop(t, key, lease) else redis.call('ZREM', t.live, key) end
  end
end

-- Let the key outlive `until_ms`. The extra minute spares all but one PEXPIRE a minute.
local function keep(key, until_ms)
  local left = redis.call('PTTL', key)
  if left ~= -2 and left < until_ms - now then redis.call('PEXPIRE', key, int(until_ms - now + 60000)) end
end

local function lease_keep(t, until_ms)
  keep(t.leases, until_ms)
  keep(t.live, until_ms)
  keep(t.owned, until_ms)
end
