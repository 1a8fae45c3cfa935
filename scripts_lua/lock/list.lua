-- lock/list: a page of the live locks, of one owner or of all, in order of owner and key.
--
-- KEYS[1] lock        hash  the locks, see _lib/lease
-- KEYS[2] lock:live   zset
-- KEYS[3] lock:owned  zset
-- ARGV[1] owner       str   empty: everybody's
-- ARGV[2] after       str   the cursor that the page before returned; empty: the first page
-- ARGV[3] limit       int   how many to look at
--
-- Returns  {cursor, *locks}  each {key, owner, fence, expires_at_ms}, or which one can't be read; an empty cursor: the last page
-- include: _lib/lock

local t = lock_table(KEYS[1], KEYS[2])
local low, high = '-', '+'
if ARGV[1] ~= '' then low, high = '[' .. ARGV[1] .. '\255', '(' .. ARGV[1] .. '\255\255' end
if ARGV[2] ~= '' then low = '(' .. ARGV[2] end
local page, keys = redis.call('ZRANGEBYLEX', KEYS[3], low, high, 'LIMIT', 0, ARGV[3]), {}
local out = {#page == tonumber(ARGV[3]) and page[#page] or ''}
for i, member in ipairs(page) do
  keys[i] = string.sub(member, (string.find(member, '\255', 1, true) or 0) + 1)  -- 0: of somebody else's making, and nobody's lock
end
if #keys > 0 then lock_gather(t, keys) end
for _, key in ipairs(keys) do
  local lease, problem = attempt(lock_read, t, key)
  if problem then out[#out + 1] = problem end
  if lease and lease.live then out[#out + 1] = {key, lease.owner, lease.fence, lease.expires} end
end
return out
