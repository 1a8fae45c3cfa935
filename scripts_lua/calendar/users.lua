-- calendar/users: a page of the jobs, and of those that exclude by calendars, which.
--
-- KEYS[1] job        hash  job -> "REV JSON"
-- KEYS[2] job:order  zset
-- ARGV[1] after      str   the cursor of the page before; empty: the first page
-- ARGV[2] limit      int   bounds the script's time
--
-- Returns  {cursor, *users}  an empty cursor: this was the last page. users: job, JSON list of names, job, ...
-- include: _lib/clock

local limit = tonumber(ARGV[2])
local jobs = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'LIMIT', 0, limit)
local out = {#jobs == limit and jobs[limit] or ''}
local lines = #jobs > 0 and redis.call('HMGET', KEYS[1], unpack(jobs)) or {}
for i, line in ipairs(lines) do
  local exclude = line and string.match(line, '"exclude":(%[[^%]]*%])')
  if exclude then
    out[#out + 1] = jobs[i]
    out[#out + 1] = exclude
  end
end
return out
