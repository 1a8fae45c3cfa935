-- _lib/leases: a table of leases as a run sees it.
--
--   local locks = lease_table(KEYS[1], KEYS[2], KEYS[3])
--   lease_gather(locks, keys)
--   local lease = lease_read(locks, key)                       nil: nobody has it; see lease_parse for what it says
--   lease = lease_grant(locks, key, lease, {fence = mint(KEYS[4]), ttl = 5000, calls = call, note = '-', owner = owner})
--   lease_renew(locks, key, lease, 5000)
--   lease_drop(locks, key, lease)
--   lease_outlive(locks, lease.expires)                        where the keys have a TTL
-- needs: _lib/clock _lib/fence _lib/run _lib/lease

local function lease_table(records, live, owned)
  return {records = page(records), live = index(live), owned = index(owned)}
end

local function lease_gather(t, keys)
  gather(t.records, keys)
  gather(t.live, keys)
end

local function lease_read(t, key)
  local value = read(t.records, key)
  if not value then return nil end
  local lease = lease_parse(value, read(t.live, key))
  if not lease then unreadable(t.records[KEY], key) end
  if lease.mended then enter(t.live, key, lease.expires) end
  return lease
end

-- Write what has changed of it.
local function lease_put(t, key, lease)
  local text = lease_text(lease)
  if t.records[key] ~= text then write(t.records, key, text) end
  if t.live[key] ~= lease.expires then enter(t.live, key, lease.expires) end
end

local function lease_drop(t, key, lease)
  erase(t.records, key)
  leave(t.live, key)
  leave(t.owned, lease.owner .. '\255' .. key)
end

-- Give the key to a new owner; `old` is what lease_read found: nothing, or what has expired. Returns the lease.
local function lease_grant(t, key, old, lease)
  if old and old.note ~= '-' then
    -- Whoever ends what it was the lease of finds it beside the key.
    local aside = key .. '\255' .. old.note
    write(t.records, aside, lease_text(old))
    enter(t.live, aside, old.expires)
  end
  if old and old.owner ~= lease.owner then leave(t.owned, old.owner .. '\255' .. key) end
  lease.expires, lease.live = now + lease.ttl, true
  lease_put(t, key, lease)
  enter(t.owned, lease.owner .. '\255' .. key, 0)
  return lease
end

-- Of the same ttl as before, only its expiry is written.
local function lease_renew(t, key, lease, ttl)
  lease.expires = now + ttl
  if ttl ~= lease.ttl then
    lease.ttl = ttl
    write(t.records, key, lease_text(lease))
  end
  enter(t.live, key, lease.expires)
  return lease.expires
end

-- Keys of what an owner holds, up to `most`, after the key `after` ('': from the first).
local function lease_owned(t, owner, most, after)
  local low = (after and after ~= '') and '(' .. owner .. '\255' .. after or '[' .. owner .. '\255'
  local keys = range(t.owned, low, '(' .. owner .. '\255\255', most)
  for i, member in ipairs(keys) do keys[i] = string.sub(member, #owner + 2) end
  return keys
end

-- Let the keys outlive what was leased.
local function lease_close(t)
  lease_keep(t.records[KEY], t.live[KEY], t.owned[KEY], t.until_ms, read(t.records, ''))
end

local function lease_outlive(t, until_ms)
  if not t.until_ms then join(t, lease_close) end
  t.until_ms = math.max(t.until_ms or 0, until_ms)
end
