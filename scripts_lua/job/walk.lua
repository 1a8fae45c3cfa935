-- job/walk: a page of the jobs and where they stand, for an instance that sets right what was lost or set back.
--
-- KEYS[1] job        hash  job -> "REV JSON"
-- KEYS[2] job:order  zset
-- KEYS[3] job:slot   hash  job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[4] job:due    zset
-- ARGV[1] after      str   the cursor of the page before; empty: the first page
-- ARGV[2] limit      int   bounds the script's time; 0: the walk is over, and what the clock was set back by is settled
--
-- Returns  {now_ms, cursor, *jobs}  an empty cursor: this was the last page. jobs: each {job, rev, slot}; rev or slot empty: it was lost
--
-- On its way it heals the indexes: the times at which jobs come due from their slots, the order from the definitions (a thousand at
-- random at a time: whoever finds the store odd walks again).
-- include: _lib/lease1 _lib/ledger _lib/schedule

local s, limit = {defs = KEYS[1], order = KEYS[2], slots = KEYS[3], dues = KEYS[4]}, tonumber(ARGV[2])
schedule_seen(s)
if limit == 0 then
  if s.seen and s.seen > now then s.seen, s.unsure, s.settled = nil, 0, now end
  schedule_see(s)
  return {now, ''}
end
if ARGV[1] == '' and redis.call('ZCARD', s.order) < redis.call('HLEN', s.defs) then
  for _, job in ipairs(redis.call('HRANDFIELD', s.defs, 1000)) do redis.call('ZADD', s.order, 0, job) end
end

local jobs = redis.call('ZRANGEBYLEX', s.order, ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'LIMIT', 0, limit)
local out = {now, #jobs == limit and jobs[limit] or ''}
for _, job in ipairs(jobs) do
  local definition, slot = redis.call('HGET', s.defs, job), redis.call('HGET', s.slots, job)
  local due = slot and tonumber(string.match(slot, '^%S+ (%S+)'))
  local at = due and tonumber(redis.call('ZSCORE', s.dues, job) or 'none')
  -- It may be hidden for a moment, by one who is about to fire it.
  if due and (not at or at < due or at > math.max(due, now + 60000)) then redis.call('ZADD', s.dues, int(due), job) end
  if not slot then redis.call('ZREM', s.dues, job) end
  out[#out + 1] = {job, definition and string.match(definition, '^%S+') or '', slot or ''}
end
return out
