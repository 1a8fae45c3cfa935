-- calendar/list: every calendar of a shard, without its days. They are few: calendar/put refuses more.
--
-- KEYS[1] calendar  hash  see _lib/calendar
--
-- Returns  {now_ms, *lines}  lines: name, line, name, line, ...
-- include: _lib/clock

local out, names = {now}, redis.call('HKEYS', KEYS[1])
table.sort(names)
for _, name in ipairs(names) do
  out[#out + 1] = name
  out[#out + 1] = redis.call('HGET', KEYS[1], name)
end
return out
