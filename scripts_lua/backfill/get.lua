-- backfill/get: how far a job's backfill has come.
--
-- KEYS[1] job       hash
-- KEYS[2] backfill  hash  see _lib/backfill
-- ARGV[1] job       str
--
-- Returns  {existed, line, now_ms}  line: as `backfill` has it, or empty
-- include: _lib/clock

return {redis.call('HEXISTS', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[2], ARGV[1]) or '', now}
