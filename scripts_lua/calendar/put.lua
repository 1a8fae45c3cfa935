-- calendar/put: keep a calendar, in the place of the one of that name; or, of a calendar that shard 0 has, the copy of another shard.
--
-- KEYS[1] calendar       hash    see _lib/calendar
-- KEYS[2] calendar:days  hash
-- KEYS[3] reply:0        hash    see _lib/reply
-- KEYS[4] reply:1        hash
-- KEYS[5] reply:2        hash
-- ARGV[1] name           str
-- ARGV[2] rev            str     a digest of what follows
-- ARGV[3] head           json
-- ARGV[4] days           json
-- ARGV[5] number         int     that shard 0 gave it; 0: this is shard 0
-- ARGV[6] put_ms         int     likewise
-- ARGV[7] most           int     calendars that a store keeps
-- ARGV[8] call           id      of this call; the same again is the same call, repeated
--
-- Returns  {code, number, put_ms}  code: NEW, CHANGED, NO (it says the same already; of a copy: it is no older) or BUSY: there are too many
-- include: _lib/calendar _lib/reply

local calendars, days, replies = page(KEYS[1]), page(KEYS[2]), join(reply_table(KEYS[3], KEYS[4], KEYS[5]), reply_close)
local name, rev, number, put_ms = ARGV[1], ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6])
local known, was, since = calendar_read(calendars, name)
local there = known and read(days, name)
if number == 0 then
  local code, said, at = string.match(reply_of(replies, ARGV[8]) or '', '^(%d+) (%d+) (%d+)$')
  if code then return {tonumber(code), tonumber(said), tonumber(at)} end
  if there and known == rev then
    write(replies, ARGV[8], string.format('%d %d %d', RESULT.NO, was, since))
    return {RESULT.NO, was, since}
  end
  if not read(calendars, name) and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[7]) then return {RESULT.BUSY, 0, 0} end
  number, put_ms = math.max((was or 0) + 1, time[1] * 1000000 + time[2]), now
elseif there and was >= number then
  return {RESULT.NO, was, since}
end
local code = known and RESULT.CHANGED or RESULT.NEW
write(calendars, name, rev .. ' ' .. int(number) .. ' ' .. int(put_ms) .. ' ' .. ARGV[3])
write(days, name, ARGV[4])
write(replies, ARGV[8], string.format('%d %d %d', code, number, put_ms))
return {code, number, put_ms}
