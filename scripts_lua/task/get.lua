-- task/get: what is known of each task.
--
-- KEYS[1]  task          hash
-- KEYS[2]  task:lease    hash
-- KEYS[3]  task:outcome  hash
-- KEYS[4]  task:params   hash
-- KEYS[5]  ledger        hash
-- KEYS[6]  task:result   hash
-- ARGV[1]  id            str
-- Batch: ARGV[1..1] repeat, one group a call, at most 100 a run.
--
-- Returns  {record, lease, outcome, payload, ledger, result}  as _lib/task has them, or empty; the ledger's entry for the task of a slot
-- include: _lib/clock

local out = {}
for i = 1, #ARGV do
  out[i] = {redis.call('HGET', KEYS[1], ARGV[i]) or '', redis.call('HGET', KEYS[2], ARGV[i]) or '', redis.call('HGET', KEYS[3], ARGV[i]) or '',
    redis.call('HGET', KEYS[4], ARGV[i]) or '', redis.call('HGET', KEYS[5], ARGV[i]) or '',
    redis.call('HGET', KEYS[6], ARGV[i]) or ''}
end
return out
