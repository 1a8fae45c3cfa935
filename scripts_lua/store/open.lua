-- store/open: agree on the number of shards, and tell the time.
--
-- KEYS[1] shards  string  written only for more than one shard
-- KEYS[2] fence   string
-- ARGV[1] shards  int     what the store is to have, if nobody has said it yet; 0: only look
--
-- Returns  {shards, now_ms, used}  shards 0: nobody has said it; used 1: this shard has been written to
--
-- A store in use keeps its number: a name would be looked for in another shard than the one it was put in. Instances say it
-- again with each heartbeat, for the key goes with FLUSHALL.
-- Under OOM: runs.
-- include: _lib/clock

if ARGV[1] ~= '0' then redis.call('SET', KEYS[1], ARGV[1], 'NX') end
return answer(function()
  local shards = tonumber(redis.call('GET', KEYS[1]) or '0')
  if not shards then unreadable(KEYS[1]) end
  return {shards, now, redis.call('EXISTS', KEYS[2])}
end)
