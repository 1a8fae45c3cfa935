-- job/get: the definitions and next slots of jobs.
--
-- KEYS[1] job       hash  job -> "REV JSON"
-- KEYS[2] job:slot  hash  job -> "SLOT DUE REV RULES"
-- KEYS[3] job:open  hash
-- ARGV[1] job       str
-- Batch: ARGV[1..1] repeat, one group a call, at most 256 a run.
--
-- Returns  {definition, slot, open}  "REV JSON", "SLOT DUE REV RULES" (empty, or SLOT is -1: it has ended), the unfinished task's id or
--                                    empty
--          {}                        no such job
-- include: _lib/clock

local out = {}
for i = 1, #ARGV do
  local definition = redis.call('HGET', KEYS[1], ARGV[i])
  out[i] = definition and
    {definition, redis.call('HGET', KEYS[2], ARGV[i]) or '', redis.call('HGET', KEYS[3], ARGV[i]) or ''} or {}
end
return out
