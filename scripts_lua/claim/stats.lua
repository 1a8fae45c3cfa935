-- claim/stats: how often what happened to the claims of this shard, since the store was made.
--
-- KEYS[1] claim:stats  hash  see _lib/claim
--
-- Returns  {acquired, contended, took_over, completed, failed, released, renewed, expired}

local out = redis.call('HMGET', KEYS[1], 'acquired', 'contended', 'took_over', 'completed', 'failed', 'released', 'renewed', 'expired')
for i = 1, #out do out[i] = tonumber(out[i] or 0) end
return out
