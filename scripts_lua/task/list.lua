-- task/list: a page of the ids of tasks.
--
-- KEYS[1]  task:ready    zset
-- KEYS[2]  task:delayed  zset
-- KEYS[3]  task:dead     zset
-- KEYS[4]  task:live     zset
-- KEYS[5]  task:ended    zset
-- ARGV[1]  place         str   ready, delayed, dead: in order, of a queue; running: by expiry; ended: the latest to be forgotten first
-- ARGV[2]  queue         str   empty: of all; running and ended ones are always of all
-- ARGV[3]  after         str   the cursor of the page before; empty: the first page
-- ARGV[4]  limit         int
--
-- Returns  {cursor, *ids}  an empty cursor: this was the last page
-- include: _lib/clock

local place, queue, after, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local out = {''}
if place == 'running' or place == 'ended' then
  local from = tonumber(after) or 0
  local key = place == 'running' and KEYS[4] or KEYS[5]
  local ids = place == 'running' and redis.call('ZRANGE', key, from, from + limit - 1) or redis.call('ZREVRANGE', key, from, from + limit - 1)
  for _, id in ipairs(ids) do out[#out + 1] = id end
  if #ids == limit then out[1] = int(from + limit) end
else
  local key = place == 'ready' and KEYS[1] or place == 'delayed' and KEYS[2] or KEYS[3]
  local low = after ~= '' and '(' .. after or queue ~= '' and '[' .. queue .. '\255' or '-'
  local members = redis.call('ZRANGEBYLEX', key, low, queue ~= '' and '(' .. queue .. '\255\255' or '+', 'LIMIT', 0, limit)
  local width = place == 'dead' and 15 or 33
  for _, member in ipairs(members) do
    local at = string.find(member, '\255', 1, true)
    out[#out + 1] = string.sub(member, at + 1 + width)
  end
  if #members == limit then out[1] = members[limit] end
end
return out
