-- lock/renew: set the time left of each lock anew, for its live owner only; an expired lock is never revived.
--
-- KEYS[1] lock        hash  the locks, see _lib/lease
-- KEYS[2] lock:live   zset
-- KEYS[3] lock:owned  zset
-- ARGV[1] key         str
-- ARGV[2] owner       str
-- ARGV[3] token       id    of the call that took the lock; "TOKEN+": also if its owner took it again; "-": whichever
-- ARGV[4] ttl_ms      int
-- Batch: ARGV[1..4] repeat, one group a call, at most 256 a run.
--
-- Returns  expires_at_ms  renewed
--          0              not held by this owner: expired, missing, or another's
--
-- What is renewed most is renewed for as long as before: then its place in lock:live is all that is written.
-- Under OOM: runs.
-- include: _lib/lease

local keys = {}
for i = 1, #ARGV, 4 do keys[#keys + 1] = ARGV[i] end
local values = redis.call('HMGET', KEYS[1], '', unpack(keys))
local scores = redis.call('ZMSCORE', KEYS[2], unpack(keys))

local out, expiries, texts, furthest, ttl, expiry = {}, {}, {}, 0, nil, nil
for n, key in ipairs(keys) do
  local i, value = 4 * n - 3, values[n + 1]
  local was = value and lease_renewable(value, tonumber(scores[n] or nil), ARGV[i + 1], ARGV[i + 2])
  if was then
    if ttl ~= tonumber(ARGV[i + 3]) then
      ttl = tonumber(ARGV[i + 3])
      expiry, furthest = int(now + ttl), math.max(furthest, now + ttl)
    end
    if was ~= ttl then texts[#texts + 1], texts[#texts + 2] = key, string.gsub(value, '^(%d+) %d+', '%1 ' .. int(ttl)) end
    expiries[#expiries + 1], expiries[#expiries + 2] = expiry, key
    out[n] = now + ttl
  elseif was == nil then
    out[n] = unread(KEYS[1], key)
  else
    out[n] = 0
  end
end

if #texts > 0 then redis.call('HSET', KEYS[1], unpack(texts)) end
if #expiries > 0 then
  redis.call('ZADD', KEYS[2], unpack(expiries))
  lease_keep(KEYS[1], KEYS[2], KEYS[3], furthest, values[1])
end
return out
