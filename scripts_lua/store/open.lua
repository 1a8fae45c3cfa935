-- store/open: agree on the number of shards, and tell the time.
--
-- KEYS[1] shards  string  written only for more than one shard
-- KEYS[2] fence   string  the last fence of this shard
-- ARGV[1] wanted  int     how many shards the caller was told of; 0: whatever the store has
--
-- Returns  {shards, now_ms}  shards is what the store has, wanted or not
--
-- A store in use keeps its number: a name would be looked for in another shard than the one it was put in.
-- include: _lib/lease

local wanted = tonumber(ARGV[1])
local shards = tonumber(redis.call('GET', KEYS[1]) or '1')
if wanted > 1 and shards == 1 and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('SET', KEYS[1], wanted)
  shards = wanted
end
return {shards, now}
