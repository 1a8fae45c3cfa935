-- task/list: a page of the ids of tasks.
--
-- KEYS[1]  task:ready    zset
-- KEYS[2]  task:delayed  zset
-- KEYS[3]  task:dead     zset
-- KEYS[4]  task:live     zset
-- KEYS[5]  task:ended    zset
-- KEYS[6]  lock          hash
-- KEYS[7]  lock:live     zset
-- ARGV[1]  place         str   ready, delayed, dead: in order, of a queue; running: by expiry; jobs: as running, those leased as a job's
--                              lock; ended: the latest to be forgotten first
-- ARGV[2]  queue         str   empty: of all; running, jobs and ended ones are always of all
-- ARGV[3]  after         str   the cursor of the page before; empty: the first page
-- ARGV[4]  limit         int
--
-- Returns  {cursor, *ids}  an empty cursor: this was the last page
-- include: _lib/clock _lib/lease

local place, queue, after, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local out = {''}
if place == 'running' or place == 'jobs' or place == 'ended' then
  local from = tonumber(after) or 0
  local key = place == 'running' and KEYS[4] or place == 'jobs' and KEYS[7] or KEYS[5]
  local ids = place == 'ended' and redis.call('ZREVRANGE', key, from, from + limit - 1) or redis.call('ZRANGE', key, from, from + limit - 1)
  if #ids == limit then out[1] = int(from + limit) end
  local leases = place == 'jobs' and #ids > 0 and redis.call('HMGET', KEYS[6], unpack(ids))
  for i, id in ipairs(ids) do
    local lease = leases and lease_parse(leases[i] or '', now)
    if lease then
      out[#out + 1] = lease_task(id, lease)
    elseif not leases then
      out[#out + 1] = id
    end
  end
else
  local key = place == 'ready' and KEYS[1] or place == 'delayed' and KEYS[2] or KEYS[3]
  local low = after ~= '' and '(' .. after or queue ~= '' and '[' .. queue .. '\255' or '-'
  local members = redis.call('ZRANGEBYLEX', key, low, queue ~= '' and '(' .. queue .. '\255\255' or '+', 'LIMIT', 0, limit)
  local width = place == 'dead' and 15 or 33
  for _, member in ipairs(members) do
    local at = string.find(member, '\255', 1, true)
    if at then out[#out + 1] = string.sub(member, at + 1 + width) end
  end
  if #members == limit then out[1] = members[limit] end
end
return out
