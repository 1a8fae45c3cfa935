-- calendar/list: every calendar of a shard, without its days. They are few: calendar/put refuses more.
--
-- KEYS[1] calendar  hash  see _lib/calendar
--
-- Returns  {now_ms, *lines}  lines: name, line, name, line, ...
-- include: _lib/clock

local out, names = {now}, redis.call('HKEYS', KEYS[1])
table.sort(names)
local lines = #names > 0 and redis.call('HMGET', KEYS[1], unpack(names)) or {}
for i, line in ipairs(lines) do
  out[#out + 1] = names[i]
  out[#out + 1] = line
end
return out
