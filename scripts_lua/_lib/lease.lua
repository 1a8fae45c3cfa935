-- _lib/lease: what a lease is, and who may do what to it.
--
-- A table of leases is three keys:
--   records  hash  KEY -> "FENCE TTL_MS CALLS NOTE OWNER", constant while it is held
--   live     zset  KEY by when it expires, in ms: the only place where that stands
--   owned    zset  OWNER \255 KEY, all of score 0: what an owner holds. UTF-8 never holds byte 255.
-- TTL_MS: for how long it was last taken or renewed. CALLS: ids of the calls by which its owner took it, separated by commas, and
-- "+" if they were too many to keep. NOTE: "-" for a lock; what else holds the key, and ends by verbs of its own, says what it is.
-- What is released is gone: a repeated call finds its answer in _lib/reply.
-- needs: _lib/clock

-- `score`: from `live`, false: none. One that expires later than it can was written before the clock was set back, and one without
-- a score lost its entry: either has TTL_MS from now on, for its holder may live; `mended` until that is written.
local function lease_parse(value, score)
  local fence, ttl, calls, note, owner = string.match(value, '^(%d+) (%d+) (%S+) (%S+) (.+)$')
  if not owner then return nil end
  fence, ttl = tonumber(fence), tonumber(ttl)
  local mended = not score or score > now + ttl + SET_BACK_MS
  local expires = mended and now + ttl or score
  return {fence = fence, ttl = ttl, calls = calls, note = note, owner = owner, expires = expires, live = expires > now, mended = mended}
end

local function lease_text(lease)
  return string.format('%d %d ', lease.fence, lease.ttl) .. lease.calls .. ' ' .. lease.note .. ' ' .. lease.owner
end

-- Whether `call` is one of those that took it.
local function lease_took(lease, call)
  return lease.calls == call or string.find(',' .. lease.calls .. ',', ',' .. call .. ',', 1, true) ~= nil
end

-- Its owner takes it again by another call. Each is kept, so that the lease ends when all of them are undone, and no sooner.
local function lease_retake(lease, call)
  if lease_took(lease, call) or string.sub(lease.calls, -2) == ',+' then return end
  lease.calls = lease.calls .. ',' .. (#lease.calls < 160 and call or '+')
end

-- `call` is undone, by which its owner took it: the others hold it. Whether it was one of several.
local function lease_untake(lease, call)
  local calls = ',' .. lease.calls .. ','
  local first, last = string.find(calls, ',' .. call .. ',', 1, true)
  if not first or #calls == last - first + 1 then return false end
  lease.calls = string.sub(string.sub(calls, 1, first) .. string.sub(calls, last + 1), 2, -2)
  return true
end

-- Whether `token` may end or renew it. Once its owner has taken it again by another call, only "CALL+" will do: that is
-- what a block says that holds it, while the undoing of a cancelled call says "CALL". "-": whichever.
local function lease_taken_by(lease, token)
  return token == '-' or lease.calls == token
    or string.sub(token, -1) == '+' and lease_took(lease, string.sub(token, 1, -2))
end

-- The same in one go, of a lock as it stands: its TTL_MS if `token` of that owner may renew it; false: not, or no longer; nil: it can't be read.
local function lease_renewable(value, score, owner, token)
  local ttl, calls, note, holder = string.match(value, '^%d+ (%d+) (%S+) (%S+) (.+)$')
  if not holder then return nil end
  if holder ~= owner or note ~= '-' or score and score <= now then return false end
  return (token == '-' or calls == token or calls .. '+' == token or lease_taken_by({calls = calls}, token)) and tonumber(ttl)
end

-- Let the keys of a table outlive `until_ms`, and a minute more, so that all but one run a minute touch no TTL. The empty field of the
-- records, `horizon`, says for how long they do; the empty members keep a key from being emptied, and with it from losing its TTL.
-- Returns the horizon as it stands now.
local function lease_keep(records, live, owned, until_ms, horizon)
  horizon = tonumber(horizon or nil) or 0
  if until_ms + REPEAT_MS <= horizon then return horizon end
  horizon = until_ms + REPEAT_MS + 60000
  redis.call('HSET', records, '', int(horizon))
  redis.call('ZADD', live, '+inf', '')
  redis.call('ZADD', owned, 0, '\255\255')
  for _, key in ipairs({records, live, owned}) do redis.call('PEXPIREAT', key, int(horizon)) end
  return horizon
end

-- The task whose attempt has the lock of its job: JOB@SLOT, or JOB!ID of one that was triggered. nil: it is nobody's attempt.
local function lease_task(key, lease)
  if lease.note == '-' then return nil end
  return string.match(key, '^job:([^\255]*)') .. (string.sub(lease.note, 1, 1) == '!' and '' or '@') .. lease.note
end
