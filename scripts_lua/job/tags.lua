-- job/tags: make the index of tags anew, a page of the jobs at a time, if it does not know all of them.
--
-- KEYS[1] job        hash  job -> "REV JSON"
-- KEYS[2] job:order  zset
-- KEYS[3] job:tag    zset  see _lib/tags
-- ARGV[1] after      str   the cursor of the page before; empty: the first page
-- ARGV[2] limit      int   bounds the script's time
--
-- Returns  {cursor, done}  an empty cursor: this was the last page, or there is nothing to do, or another is at it. done 1: the index knows all jobs
--
-- Whoever begins has a minute a page until another may begin. Jobs that are declared or removed meanwhile keep it as they always do.
-- include: _lib/tags

local after, limit, key = ARGV[1], tonumber(ARGV[2]), KEYS[3]
local known = tonumber(redis.call('ZSCORE', key, SUM) or 0)
if after == '' then
  if tags_whole(key, KEYS[1]) then return {'', 1} end
  if known < 0 and -known > now and -known <= now + 60000 then return {'', 0} end
  redis.call('UNLINK', key)
elseif known >= 0 then
  return {'', 0}  -- it was lost meanwhile
end
redis.call('ZADD', key, int(-(now + 60000)), SUM)
local defs, tags = page(KEYS[1]), index(key)
local jobs = redis.call('ZRANGEBYLEX', KEYS[2], after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, limit)
gather(defs, jobs)
for _, job in ipairs(jobs) do
  for _, tag in ipairs(tags_of(read(defs, job) or '')) do enter(tags, tag .. '\255' .. job, 0) end
end
if #jobs == limit then return {jobs[limit], 0} end
local there = redis.call('HLEN', KEYS[1])
if there ~= redis.call('ZCARD', KEYS[2]) then return {'', 0} end  -- what was lost of the order is looked for first
if there > 0 then enter(tags, SUM, there) else leave(tags, SUM) end
return {'', 1}
