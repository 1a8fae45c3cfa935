-- job/delete: forget a job, its slot and, up to `limit` entries at a time, its ledger. A task of it that exists goes on.
--
-- KEYS[1] job           hash  job -> "REV JSON"
-- KEYS[2] job:order     zset
-- KEYS[3] job:slot      hash
-- KEYS[4] job:due       zset
-- KEYS[5] job:open      hash
-- KEYS[6] ledger        hash
-- KEYS[7] ledger:order  zset
-- ARGV[1] job           str
-- ARGV[2] limit         int
--
-- Returns  {existed, more}  more is 1 when ledger entries are left: ask again
-- include: _lib/lease _lib/ledger

local job, limit = ARGV[1], tonumber(ARGV[2])
local existed = redis.call('HDEL', KEYS[1], job)
redis.call('ZREM', KEYS[2], job)
redis.call('HDEL', KEYS[3], job)
redis.call('ZREM', KEYS[4], job)
redis.call('HDEL', KEYS[5], job)
local members = redis.call('ZRANGEBYLEX', KEYS[7], '[' .. job .. '\255', '(' .. job .. '\255\255', 'LIMIT', 0, limit)
ledger_drop({ledger = KEYS[6], order = KEYS[7]}, job, members)
return {existed, #members == limit and 1 or 0}
