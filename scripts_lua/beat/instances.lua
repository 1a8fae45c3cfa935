-- beat/instances: who lives.
--
-- KEYS[1] instance       hash  owner -> JSON
-- KEYS[2] instance:live  zset
-- ARGV[1] limit          int
--
-- Returns  {{owner, info, dead_at_ms}, ...}
-- include: _lib/clock

local out = {}
local rows = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for i = 1, #rows, 2 do
  out[#out + 1] = {rows[i], redis.call('HGET', KEYS[1], rows[i]) or '{}', tonumber(rows[i + 1])}
end
return out
