-- job/walk: a page of the jobs and where they stand, for an instance that sets right what was lost or set back.
--
-- KEYS[1..4] of _lib/schedule
-- KEYS[5] job:paused  hash  see _lib/pause
-- KEYS[6] job:origin  zset  see _lib/origin
-- ARGV[1] after      str   the cursor of the page before; empty: the first page
-- ARGV[2] limit      int   bounds the script's time; 0: the walk is over, and what the clock was set back by is settled
--
-- Returns  {now_ms, cursor, *jobs}  an empty cursor: this was the last page. jobs: each {job, rev, slot}; rev or slot empty: it was lost
--
-- On its way it heals the indexes: the times at which jobs come due from their slots, the order from the definitions (a thousand at
-- random at a time: whoever finds the store odd walks again), and whose jobs are.
-- include: _lib/schedule _lib/origin

local s, limit = schedule_of(KEYS[1], KEYS[2], KEYS[3], KEYS[4], nil, KEYS[5]), tonumber(ARGV[2])
if limit == 0 then
  if s.seen and s.seen > now then s.seen, s.unsure, s.settled = nil, 0, now end
  schedule_see(s)
  return {now, ''}
end
if ARGV[1] == '' and redis.call('ZCARD', s.order[KEY]) < redis.call('HLEN', s.defs[KEY]) then
  for _, job in ipairs(redis.call('HRANDFIELD', s.defs[KEY], 1000)) do enter(s.order, job, 0) end
end

local jobs = range(s.order, ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', limit)
local out, owners = {now, #jobs == limit and jobs[limit] or ''}, index(KEYS[6])
gather(s.defs, jobs)
gather(s.slots, jobs)
gather(s.paused, jobs)
gather(s.dues, jobs)
for _, job in ipairs(jobs) do
  local definition, slot, at = read(s.defs, job), read(s.slots, job), read(s.dues, job)
  local due = slot and schedule_when(s, job, slot)
  -- It may be hidden for a moment, by one who is about to fire it.
  if due and (not at or at < due or at > math.max(due, now + 60000)) then enter(s.dues, job, due) end
  if not slot then leave(s.dues, job) end
  if definition then origin_passes(owners, job, nil, origin_of(definition)) end
  out[#out + 1] = {job, definition and string.match(definition, '^%S+') or '', slot or ''}
end
return out
