-- claim/stats: how often what happened to the claims of this shard, since the store was made.
--
-- KEYS[1] claim:stats  hash  see _lib/claim
--
-- Returns  {acquired, contended, took_over, completed, failed, released, renewed, expired}
-- include: _lib/clock

local NAMES = {'acquired', 'contended', 'took_over', 'completed', 'failed', 'released', 'renewed', 'expired'}
return answer(function()
  local out = redis.call('HMGET', KEYS[1], unpack(NAMES))
  for i, name in ipairs(NAMES) do out[i] = tonumber(out[i] or 0) or unreadable(KEYS[1], name) end
  return out
end)
