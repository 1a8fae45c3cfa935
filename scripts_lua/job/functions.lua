-- job/functions: a page of the jobs, and which functions they run.
--
-- KEYS[1] job        hash  job -> "REV JSON"
-- KEYS[2] job:order  zset
-- KEYS[3] job:slot   hash  job -> "SLOT DUE REV RULES", see _lib/schedule
-- ARGV[1] after      str   the cursor of the page before; empty: the first page
-- ARGV[2] limit      int   bounds the script's time
--
-- Returns  {cursor, *functions}  an empty cursor: this was the last page. functions: of each a name and one job that runs it: NAME, JOB, ...
--
-- A job of `lockbeat exec` is passed over: it runs a command of who calls for it, and no function. So is one that has retired.
-- include: _lib/stands

local limit = tonumber(ARGV[2])
local jobs = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'LIMIT', 0, limit)
local out, told = {#jobs == limit and jobs[limit] or ''}, {}
local lines = #jobs > 0 and redis.call('HMGET', KEYS[1], unpack(jobs)) or {}
local places = #jobs > 0 and redis.call('HMGET', KEYS[3], unpack(jobs)) or {}
for i, line in ipairs(lines) do
  -- A name with a character that JSON escapes is passed over.
  local name = line and jobs[i]
  if line and string.find(line, '"function":"', 1, true) then name = string.match(line, '"function":"([^"\\]*)"') end
  local trigger = line and string.match(line, '^%S+ {"needs":%d+,"origin":"[^"]*","trigger":(%b{})')
  local called = trigger and string.find(trigger, '"type":"called"}', 1, true)
  if name and not called and not told[name] and stands(places[i]) ~= 'retired' then
    told[name] = true
    out[#out + 1] = name
    out[#out + 1] = jobs[i]
  end
end
return out
