-- calendar/get: calendars as a shard has them.
--
-- KEYS[1] calendar       hash  see _lib/calendar
-- KEYS[2] calendar:days  hash
-- ARGV[1] name           str
-- ARGV[2] known          str   the REV that the caller has read; empty: none
-- Batch: ARGV[1..2] repeat, one group a call, at most 8 a run.
--
-- Returns  {line, days}  "REV NUMBER PUT_MS JSON", and JSON; days is empty if the caller knows that REV, or if they were lost
--          {}            no such calendar
-- include: _lib/calendar

local calendars, days = page(KEYS[1]), page(KEYS[2])
gather(calendars, column(2, 1))
return each(2, function(i)
  local line, rev = read(calendars, ARGV[i]), calendar_read(calendars, ARGV[i])
  if not line then return {} end
  return {line, rev and rev == ARGV[i + 1] and '' or read(days, ARGV[i]) or ''}
end)
