-- job/list: a page of the names of jobs, in order.
--
-- KEYS[1] job:order  zset
-- ARGV[1] after      str   the last name of the page before; empty: the first page
-- ARGV[2] limit      int
--
-- Returns  {cursor, *jobs}  an empty cursor: this was the last page
-- include: _lib/clock

local jobs = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'LIMIT', 0, ARGV[2])
return {#jobs == tonumber(ARGV[2]) and jobs[#jobs] or '', unpack(jobs)}
