-- job/heads: a page of the jobs, of each which definition it has and who declared it: enough to tell which differ from what somebody declares.
--
-- KEYS[1] job:order  zset
-- KEYS[2] job        hash  job -> "REV JSON"
-- KEYS[3] job:slot   hash  job -> "SLOT DUE REV RULES", see _lib/schedule
-- ARGV[1] after      str   the cursor of the page before; empty: the first page
-- ARGV[2] limit      int   bounds the script's time
--
-- Returns  {cursor, *heads}  an empty cursor: this was the last page. heads: of each job {job, rev, origin, version, retired}; origin and version
--                            are empty where the definition does not say them; retired: 1, or 0
--
-- A definition is some hundred bytes, of which most callers need these forty.
-- include: _lib/schedule _lib/origin _lib/version

local limit = tonumber(ARGV[2])
local jobs = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'LIMIT', 0, limit)
local out, lines, places = {#jobs == limit and jobs[limit] or ''}, {}, {}
if jobs[1] then lines, places = redis.call('HMGET', KEYS[2], unpack(jobs)), redis.call('HMGET', KEYS[3], unpack(jobs)) end
for i, line in ipairs(lines) do
  local retired = places[i] and schedule_retired(places[i])
  if line then out[#out + 1] = {jobs[i], string.match(line, '^%S*'), origin_of(line) or '', version_of(line) or '', retired and 1 or 0} end
end
return out
