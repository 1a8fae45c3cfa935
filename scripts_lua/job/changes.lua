-- job/changes: who has done what to a job, the last fifty.
--
-- KEYS[1] job          hash
-- KEYS[2] job:changes  hash  see _lib/pause
-- ARGV[1] job          str
--
-- Returns  {existed, changes, deleted}  changes: as job:changes has them, or empty; deleted: which jobs of the shard were
-- include: _lib/clock

return {redis.call('HEXISTS', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[2], ARGV[1]) or '', redis.call('HGET', KEYS[2], '') or ''}
