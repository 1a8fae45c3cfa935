-- backfill/list: a page of the backfills of jobs, in order of job; or all at once, in any order.
--
-- KEYS[1] job:order     zset
-- KEYS[2] backfill      hash  see _lib/backfill
-- KEYS[3] backfill:due  zset
-- ARGV[1] after         str   the cursor of the page before; empty: the first page
-- ARGV[2] limit         int
-- ARGV[3] state         str   running, paused, done or cancelled; empty: whichever
--
-- Returns  {cursor, *rows}  rows: {job, line} each; an empty cursor: this was the last page. There may be fewer than `limit`
--
-- Most stores have few, which are found by when to look at them, and are all told: the caller sorts them, for Lua compares texts in the order of
-- the server's locale. Else it goes through the jobs.
-- include: _lib/clock

local FEW, LOOKS = 500, 1000
local after, limit, state = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local there, names, cursor = redis.call('HLEN', KEYS[2]), {}, ''
if there == 0 then return {''} end
if there <= FEW and there == redis.call('ZCARD', KEYS[3]) then
  names, limit = redis.call('ZRANGE', KEYS[3], 0, -1), FEW
else
  names = redis.call('ZRANGEBYLEX', KEYS[1], after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, LOOKS)
  cursor = #names == LOOKS and names[LOOKS] or ''
end
if not names[1] then return {''} end
local out = {cursor}
for i, line in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
  if line and (state == '' or string.match(line, '^%S+ (%l+)') == state) then
    out[#out + 1] = {names[i], line}
    if #out > limit then
      out[1] = i < #names and names[i] or cursor
      break
    end
  end
end
return out
