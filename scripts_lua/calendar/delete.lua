-- calendar/delete: forget a calendar; or, of one that shard 0 has forgotten, the copy of another shard, unless it was put since.
--
-- KEYS[1] calendar       hash  see _lib/calendar
-- KEYS[2] calendar:days  hash
-- KEYS[3] reply:0        hash  see _lib/reply
-- KEYS[4] reply:1        hash
-- KEYS[5] reply:2        hash
-- ARGV[1] name           str
-- ARGV[2] number         int   that shard 0 answered; 0: this is shard 0
-- ARGV[3] call           id    of this call; the same again is the same call, repeated
--
-- Returns  {code, number}  code: DONE or NO (there is none, or a later one). number: whatever is put from now on has a greater one
-- Under OOM: runs.
-- include: _lib/calendar _lib/reply

local calendars, days, replies = page(KEYS[1]), page(KEYS[2]), join(reply_table(KEYS[3], KEYS[4], KEYS[5]), reply_close)
local name, upto = ARGV[1], tonumber(ARGV[2])
local _, number = calendar_read(calendars, name)
if upto == 0 then
  local said = reply_of(replies, ARGV[3])
  if said then return {RESULT.DONE, tonumber(said)} end
  upto = math.max(number or 0, time[1] * 1000000 + time[2])
end
if not read(calendars, name) or (number or 0) > upto then return {RESULT.NO, upto} end
erase(calendars, name)
erase(days, name)
write(replies, ARGV[3], int(upto))
return {RESULT.DONE, upto}
