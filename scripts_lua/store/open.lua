-- store/open: agree on the format of the store and the number of its shards, and tell the time.
--
-- KEYS[1] shards  string  written only for more than one shard
-- KEYS[2] fence   string
-- KEYS[3] format  string
-- ARGV[1] shards  int     what the store is to have, if nobody has said it yet; 0: only look
-- ARGV[2] format  int     what the caller speaks, and what the shard is in from now on, if it is in none yet; 0: only look
--
-- Returns  {shards, now_ms, used, format}  shards 0: nobody has said it; used 1: this shard has been written to; format 0: it is in none
--
-- A store in use keeps its number of shards: a name would be looked for in another shard than the one it was put in. Instances
-- say both again when a heartbeat misses them, for the keys go with FLUSHALL. Whoever comes first then decides the format.
-- Under OOM: runs.
-- include: _lib/clock

return answer(function()
  local counter, format = redis.call('GET', KEYS[2]), tonumber(redis.call('GET', KEYS[3]) or '0')
  if not format then unreadable(KEYS[3]) end
  -- Format 1 has no such key, and a second word in its counter. One word: the key was lost, and fences have been minted since.
  if format == 0 and counter and string.find(counter, ' ', 1, true) then format = 1 end
  if format == 0 and ARGV[2] ~= '0' then
    redis.call('SET', KEYS[3], ARGV[2])
    format = tonumber(ARGV[2])
  end
  if ARGV[1] ~= '0' and format == tonumber(ARGV[2]) then redis.call('SET', KEYS[1], ARGV[1], 'NX') end
  local shards = tonumber(redis.call('GET', KEYS[1]) or '0')
  if not shards then unreadable(KEYS[1]) end
  return {shards, now, counter and 1 or 0, format}
end)
