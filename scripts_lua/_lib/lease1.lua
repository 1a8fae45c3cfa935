-- _lib/lease1: a table of leases as format 1 had it, for the scripts that are not rewritten yet.
--
-- A table is two or three keys under one hash tag:
--   leases  hash  KEY -> "EXPIRES_MS:LEFT_MS FENCE TOKEN FREED OWNER"; LEFT: until it expired when this was written; 0: released
--   owned   zset  OWNER \255 KEY, all of score 0: what an owner holds, in O(owned). UTF-8 never holds byte 255.
--   live    zset  KEY by EXPIRES_MS: what to sweep, oldest first; only where an expiry has consequences (tasks)
-- TOKEN is the id of the call that took the lease; after a comma follow those by which its owner took it again, and "+" if they
-- were too many to keep. FREED is the ids of the last calls that released it ("-": none). By them a call that is repeated because
-- its reply was lost finds its own first outcome, though others held the key meanwhile.
-- needs: _lib/clock _lib/fence

local TOMBSTONE_MS = REPEAT_MS

-- Count what happened. A counter that can't be read stops nobody: it is left as it is, for whoever reads it to name.
local function tally(key, what, by)
  redis.pcall('HINCRBY', key, what, int(by))
end

-- A lease that expires later than it did when it was written, by more than the clock is trusted for, was written before the
-- clock was set back. Its holder may live: it is left what it had then, from now on; `ahead` until that is written.
local function lease_parse(value)
  local expires, left, fence, token, freed, owner = string.match(value, '^(%d+):?(%d*) (%d+) (%S+) (%S+) (.+)$')
  if not owner then return nil end
  expires, left = tonumber(expires), tonumber(left)
  local ahead = left and expires > now + left + SET_BACK_MS
  if ahead then expires = now + left end
  return {expires = expires, fence = tonumber(fence), token = token, freed = freed, owner = owner,
    live = expires > now and left ~= 0, ahead = ahead}
end

local function lease_read(t, key)
  local value = redis.call('HGET', t.leases, key)
  if not value then return nil end
  local lease = lease_parse(value)
  if not lease then unreadable(t.leases, key) end
  return lease
end

local function lease_put(t, key, lease)
  redis.call('HSET', t.leases, key, int(lease.expires) .. ':' .. int(math.max(lease.expires - now, 0)) .. ' '
    .. int(lease.fence) .. ' ' .. lease.token .. ' ' .. lease.freed .. ' ' .. lease.owner)
  if t.live then redis.call('ZADD', t.live, int(lease.expires), key) end
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
  lease.expires, lease.live = now, false
  lease_put(t, key, lease)
end

-- Whether this very call has released it before.
local function lease_freed_by(lease, call)
  return string.find(',' .. lease.freed, ',' .. call .. ',', 1, true) ~= nil
end

-- What an owner holds, up to `most` keys: its own index, and nobody else's.
local function lease_owned(t, owner, most)
  local keys = redis.call('ZRANGEBYLEX', t.owned, '[' .. owner .. '\255', '(' .. owner .. '\255\255', 'LIMIT', 0, most)
  for i, member in ipairs(keys) do keys[i] = string.sub(member, #owner + 2) end
  return keys
end

-- Forget a lease without a tombstone.
local function lease_drop(t, key, lease)
  redis.call('HDEL', t.leases, key)
  if t.live then redis.call('ZREM', t.live, key) end
  redis.call('ZREM', t.owned, lease.owner .. '\255' .. key)
end

-- Of an index by expiry the last entries: what a clock that was set back since has put further ahead than it can be runs out
-- as its holder would have it. Where a longer lease stands behind it, it is found when that is over.
local function lease_settle(t, most)
  local last = redis.call('ZRANGE', t.live, -most, -1, 'WITHSCORES')
  for i = #last - 1, 1, -2 do
    local lease = last[i] ~= '' and tonumber(last[i + 1]) > now + SET_BACK_MS and attempt(lease_read, t, last[i])
    if lease and not lease.ahead then return end
    if lease then lease_put(t, last[i], lease) end
  end
end
