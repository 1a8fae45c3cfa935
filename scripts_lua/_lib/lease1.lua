-- _lib/lease1: a table of leases as format 1 had it, for the scripts that are not rewritten yet.
--
-- A table is two or three keys under one hash tag:
--   leases  hash  KEY -> "EXPIRES_MS:LEFT_MS FENCE TOKEN FREED OWNER"; LEFT: until it expired when this was written; 0: released
--   owned   zset  OWNER \255 KEY, all of score 0: what an owner holds, in O(owned). UTF-8 never holds byte 255.
--   live    zset  KEY by EXPIRES_MS: what to sweep, oldest first; only where an expiry has consequences (tasks)
-- TOKEN is the id of the call that took the lease; after a comma follow those by which its owner took it again, and "+" if they
-- were too many to keep. FREED is the ids of the last calls that released it ("-": none). By them a call that is repeated because
-- its reply was lost finds its own first outcome, though others held the key meanwhile.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- From 2^53 us on a fence can't be told from its neighbours, and a counter that stands there is unreadable for good, also
-- once the clock is right again. So such a clock is refused before anything is written.
if tonumber(time[1]) >= 9007199254 then return redis.error_reply('LOCKBEAT_CLOCK the server\'s clock is past the year 2255') end
local ASIDE_MS = 60000  -- when a loop looks again at what it could not read
local TOMBSTONE_MS = 20000  -- a call is repeated for at most two timeouts of 5 s, and waits one more
local SET_BACK_MS = 1000  -- what lies further ahead than it can was written before the server's clock was set back

-- tostring() writes 1e+15 for a fence.
local function int(number)
  return string.format('%d', number)
end

-- What stands under our keys and can't be read is an error that names it, never "absent": it may be somebody's lease. `field` nil: a string.
local function unreadable(key, field)
  error('LOCKBEAT_UNREADABLE ' .. key .. '\255' .. (field or ''), 0)
end

-- What `call` returns, the second value as the third; or nil, and which entry it could not read.
local function attempt(call, ...)
  local ok, said, more = pcall(call, ...)
  if ok then return said, nil, more end
  local word = type(said) == 'string' and string.match(said, '^(%u[%u_]*) ')
  if word == 'LOCKBEAT_UNREADABLE' then return nil, said end
  error(word and {err = said} or said, 0)  -- of the server's: its pcall makes text of it, which would be taken for a script's own
end

-- The reply of a script that is called alone.
local function answer(call)
  local said, problem = attempt(call)
  return problem or said
end

-- The replies to the groups of ARGV. The one that meets what can't be read is answered so, and its neighbours are not.
local function each(width, call)
  local out = {}
  for i = 1, #ARGV, width do
    local said, problem = attempt(call, i)
    out[#out + 1] = problem or said
  end
  return out
end

-- Count what happened. A counter that can't be read stops nobody: it is left as it is, for whoever reads it to name.
local function tally(key, what, by)
  redis.pcall('HINCRBY', key, what, int(by))
end

-- fence = max(last + 1, TIME in microseconds): the clock keeps it growing when the counter is lost to FLUSHALL, eviction
-- or failover, the counter when the clock stands still or steps back. A batch reserves in one write what it may mint, and no
-- more: a counter that ran ahead of the clock would go back when it is lost.
-- The counter's second word says until when the keys of the locks live.
local last, minted, horizon, reserved = nil, nil, 0, 0
local function counter_read(counter)
  if last then return end
  local fence, until_ms = string.match(redis.call('GET', counter) or '0', '^(%d+) ?(%d*)$')
  local found = tonumber(fence)
  if not found or found >= 9007199254740992 then unreadable(counter) end
  last, horizon = found, tonumber(until_ms) or 0
end

local function mint(counter)
  counter_read(counter)
  minted = (minted or math.max(last, time[1] * 1000000 + time[2] - 1)) + 1
  if minted > reserved then
    reserved = minted + math.floor(#ARGV / 6)
    redis.call('SET', counter, int(reserved) .. ' ' .. int(horizon))
  end
  return minted
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

-- Whether `call` is one of those that took it.
local function lease_took(lease, call)
  return lease.token == call or string.find(',' .. lease.token .. ',', ',' .. call .. ',', 1, true) ~= nil
end

-- Its owner takes it again by another call. Each is kept, so that the lease ends when all of them are undone, and no sooner.
local function lease_retake(lease, call)
  if lease_took(lease, call) or string.sub(lease.token, -2) == ',+' then return end
  lease.token = lease.token .. ',' .. (#lease.token < 160 and call or '+')
end

-- `call` is undone, by which its owner took it: the others hold it. Whether it was one of several.
local function lease_untake(lease, call)
  local calls = ',' .. lease.token .. ','
  local first, last = string.find(calls, ',' .. call .. ',', 1, true)
  if not first or #calls == last - first + 1 then return false end
  lease.token = string.sub(string.sub(calls, 1, first) .. string.sub(calls, last + 1), 2, -2)
  return true
end

-- Whether `token` may end or renew it. Once its owner has taken it again by another call, only "TOKEN+" will do: that is
-- what a block says that holds it, while the undoing of a cancelled call says "TOKEN".
local function lease_taken_by(lease, token)
  return token == '-' or lease.token == token
    or string.sub(token, -1) == '+' and lease_took(lease, string.sub(token, 1, -2))
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

-- Forget leases that ended a while ago, by sampling, as Redis does with its own keys: each run that adds `added` looks at
-- more than that, so what has ended stays a fraction of what there is, without an index to keep in order.
local function lease_prune(t, added)
  if time[2] % 4 ~= 0 then return end
  local sample = redis.call('HRANDFIELD', t.leases, -math.min(8 * added, 1024), 'WITHVALUES')
  for i = 1, #sample, 2 do
    local lease = lease_parse(sample[i + 1])
    if lease and lease.ahead then
      lease_put(t, sample[i], lease)
    elseif lease and lease.expires + TOMBSTONE_MS <= now then
      lease_drop(t, sample[i], lease)
    end
  end
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

-- Let the keys of the locks outlive `until_ms`. Told by the counter, so that all but one run a minute touch no TTL; the empty
-- member keeps a key from being emptied, and with it from losing its TTL.
local function lease_keep(t, counter, until_ms)
  local _, problem = attempt(counter_read, counter)
  if until_ms <= horizon then return end
  horizon = until_ms + 60000
  -- What can't be read is not written over: nothing is minted by it, but what is held is renewed.
  if not problem then redis.call('SET', counter, int(math.max(last, reserved)) .. ' ' .. int(horizon)) end
  redis.call('HSET', t.leases, '', '')
  redis.call('ZADD', t.owned, 0, '\255\255')
  redis.call('PEXPIREAT', t.leases, int(horizon))
  redis.call('PEXPIREAT', t.owned, int(horizon))
end
