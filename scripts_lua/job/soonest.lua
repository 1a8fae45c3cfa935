-- job/soonest: a page of the jobs in the order in which they come due; those that are paused, or have no slots, come last.
--
-- KEYS[1] job:due  zset
-- ARGV[1] due      int   ms; go on after the job that was due then ...
-- ARGV[2] after    str   ... and had this name; empty: from that time on
-- ARGV[3] limit    int
--
-- Returns  {now_ms, *rows}  each {name, due_ms}
--
-- Thousands of jobs share a time, in order of name: the place is found by halves, in O(log^2 n).
-- include: _lib/clock

-- By bytes, as the server orders members: Lua's own `<` goes by the locale.
local function behind(name, other)
  for at = 1, math.min(#name, #other) do
    local one, two = string.byte(name, at), string.byte(other, at)
    if one ~= two then return one > two end
  end
  return #name > #other
end

local due, after, key = ARGV[1], ARGV[2], KEYS[1]
local from = redis.call('ZCOUNT', key, '-inf', '(' .. due)
if after ~= '' then
  local to = from + redis.call('ZCOUNT', key, due, due)
  while from < to do
    local middle = math.floor((from + to) / 2)
    local name = redis.call('ZRANGE', key, middle, middle)[1]
    if name and not behind(name, after) then from = middle + 1 else to = middle end
  end
end
local found, out = redis.call('ZRANGE', key, from, from + tonumber(ARGV[3]) - 1, 'WITHSCORES'), {now}
for i = 1, #found, 2 do out[#out + 1] = {found[i], tonumber(found[i + 1])} end
return out
