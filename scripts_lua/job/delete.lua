-- job/delete: forget a job, its slot and, up to `limit` entries at a time, its ledger, with the tasks of it that wait. One that runs goes on.
--
-- KEYS[1..24] of _lib/task
-- KEYS[25] job        hash  job -> "REV JSON"
-- KEYS[26] job:order  zset
-- KEYS[27] job:slot   hash
-- KEYS[28] job:due    zset
-- ARGV[1]  job        str
-- ARGV[2]  limit      int
--
-- Returns  {existed, more}  more is 1 when ledger entries are left: ask again
-- include: _lib/lease1 _lib/waiting _lib/ledger _lib/task

local job, limit = ARGV[1], tonumber(ARGV[2])
local function withdraw(id)
  local record = task_read(id)
  if not record or record.seq == 0 then return end
  task_unqueue(id, record)
  task_end(id, record, 'cancelled', nil, nil, 'its job was deleted')
end

local existed = redis.call('HDEL', KEYS[25], job)
redis.call('ZREM', KEYS[26], job)
redis.call('HDEL', KEYS[27], job)
redis.call('ZREM', KEYS[28], job)
local open = redis.call('HGET', q.open, job)
if open then withdraw(open) end
redis.call('HDEL', q.open, job)
local members = redis.call('ZRANGEBYLEX', q.ledger.order, '[' .. job .. '\255', '(' .. job .. '\255\255', 'LIMIT', 0, limit)
for _, member in ipairs(members) do withdraw(job .. '@' .. int(tonumber(string.sub(member, #job + 2)))) end
ledger_drop(q.ledger, job, members)
return {existed, #members == limit and 1 or 0}
