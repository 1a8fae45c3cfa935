-- _lib/lock: the locks as one run finds and leaves them: gather, decide, scatter, in plain text, as they are called alone and often.
--
-- A lease with a NOTE is no lock: an attempt of a job is leased under `job:NAME`, so that nobody locks that name meanwhile. It ends by the
-- verbs of tasks, and those of locks leave it alone.
-- needs: _lib/clock _lib/fence _lib/lease

-- held: KEY -> its lease as it stands by now; false: nobody's; a text: it can't be read. The lists are what is to be written.
local function lock_table(records, live, owned)
  return {records = records, live = live, owned = owned, held = {}, touched = {}, until_ms = 0,
    texts = {}, expiries = {}, gone = {}, own = {}, disown = {}}
end

local function lock_gather(t, keys)
  local held, values, scores = t.held, redis.call('HMGET', t.records, '', unpack(keys)), nil
  t.horizon = values[1]
  for i, key in ipairs(keys) do
    local value = values[i + 1]
    if not value then
      held[key] = false
    elseif held[key] == nil then
      scores = scores or redis.call('ZMSCORE', t.live, unpack(keys))
      held[key] = lease_parse(value, tonumber(scores[i] or nil)) or value
    end
  end
end

-- The lease of a key, or false.
local function lock_read(t, key)
  local lease = t.held[key]
  if lease == nil then
    lock_gather(t, {key})
    lease = t.held[key]
  end
  if type(lease) == 'string' then unreadable(t.records, key) end
  return lease
end

local function lock_scatter(t)
  counter_write()
  local texts, gone, own, disown = t.texts, t.gone, t.own, t.disown
  if #gone > 0 then
    redis.call('HDEL', t.records, unpack(gone))
    redis.call('ZREM', t.live, unpack(gone))
    t.gone = {}
  end
  if #disown > 0 then
    redis.call('ZREM', t.owned, unpack(disown))
    t.disown = {}
  end
  if #texts > 0 then
    redis.call('HSET', t.records, unpack(texts))
    redis.call('ZADD', t.live, unpack(t.expiries))
    t.texts, t.expiries = {}, {}
  end
  if #own > 0 then
    redis.call('ZADD', t.owned, unpack(own))
    t.own = {}
  end
  if t.until_ms > 0 then t.horizon = lease_keep(t.records, t.live, t.owned, t.until_ms, t.horizon) end
end

-- Two changes of a key in one run are two writes, so that the lists need no order.
local function lock_touch(t, key)
  if t.touched[key] then lock_scatter(t) end
  t.touched[key] = true
end

local function lock_put(t, key, lease)
  lock_touch(t, key)
  local texts, expiries = t.texts, t.expiries
  t.held[key] = lease
  texts[#texts + 1], texts[#texts + 2] = key, lease_text(lease)
  expiries[#expiries + 1], expiries[#expiries + 2] = int(lease.expires), key
  if lease.expires > t.until_ms then t.until_ms = lease.expires end
end

local function lock_drop(t, key, lease)
  lock_touch(t, key)
  t.held[key] = false
  t.gone[#t.gone + 1] = key
  t.disown[#t.disown + 1] = lease.owner .. '\255' .. key
end

-- Give the key to a new owner; `old` is what lock_read found: nothing, or what has expired. Returns the lease.
local function lock_grant(t, key, old, lease)
  -- Whoever ends what it was the lease of finds it beside the key.
  if old and old.note ~= '-' then lock_put(t, key .. '\255' .. old.note, old) end
  lease.expires, lease.live = now + lease.ttl, true
  lock_put(t, key, lease)
  if old and old.owner ~= lease.owner then t.disown[#t.disown + 1] = old.owner .. '\255' .. key end
  t.own[#t.own + 1], t.own[#t.own + 2] = '0', lease.owner .. '\255' .. key
  return lease
end

-- Forget locks that have expired, of `most` that have. What an attempt left is for the sweep of tasks to find: returns whether there is
-- that alone.
local function lock_forget(t, most, skip)
  local keys = redis.call('ZRANGEBYSCORE', t.live, '-inf', int(now), 'LIMIT', skip, most)
  if #keys == 0 then return false end
  local values, gone, disown = redis.call('HMGET', t.records, unpack(keys)), {}, {}
  for i, key in ipairs(keys) do
    local lease = values[i] and lease_parse(values[i], 0)
    if values[i] and not lease then
      redis.call('ZADD', t.live, int(now + ASIDE_MS), key)  -- what can't be read may be anybody's: it stands in nobody's way
    elseif not lease or lease.note == '-' then
      gone[#gone + 1] = key
      if lease then disown[#disown + 1] = lease.owner .. '\255' .. key end
    end
  end
  if #gone == 0 then return #keys == most end
  redis.call('HDEL', t.records, unpack(gone))
  redis.call('ZREM', t.live, unpack(gone))
  if #disown > 0 then redis.call('ZREM', t.owned, unpack(disown)) end
  return false
end
