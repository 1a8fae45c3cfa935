-- lock/release_all: give back what an owner holds, up to `limit` at a time, handing each to the first who waits.
--
-- KEYS[1] lock          hash    the locks, see _lib/lease
-- KEYS[2] lock:live     zset
-- KEYS[3] lock:owned    zset
-- KEYS[4] fence         string  the last fence of this shard
-- KEYS[5] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[6] lock:waiters  hash
-- KEYS[7] reply:0       hash    see _lib/reply
-- KEYS[8] reply:1       hash
-- KEYS[9] reply:2       hash
-- ARGV[1] owner         str
-- ARGV[2] after         str     the cursor that the page before returned; empty: the first page
-- ARGV[3] call          id      of this call; the same again is the same call, repeated
-- ARGV[4] limit         int     bounds the script's time
--
-- Returns  {released, cursor, *unreadable}  live ones only are counted; an empty cursor: this was the last page; unreadable: see
--          _lib/clock
--
-- The owner's own index makes this O(owned): nothing is scanned, and no other owner's lease is looked at.
-- Under OOM: runs.
-- include: _lib/lock _lib/waiting _lib/reply

local t, w = lock_table(KEYS[1], KEYS[2], KEYS[3]), {queue = KEYS[5], waiters = KEYS[6]}
local replies = reply_table(KEYS[7], KEYS[8], KEYS[9])
local owner, after, call, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local said = reply_of(replies, call)
if said then
  local count, cursor = string.match(said, '^(%d+) (.*)$')
  return {tonumber(count), cursor}
end

local low = (after == '' and '[' or '(') .. owner .. '\255' .. after
local keys = redis.call('ZRANGEBYLEX', t.owned, low, '(' .. owner .. '\255\255', 'LIMIT', 0, limit)
for i, member in ipairs(keys) do keys[i] = string.sub(member, #owner + 2) end
if #keys > 0 then lock_gather(t, keys) end
local queued, released, left = redis.call('EXISTS', w.queue) == 1, 0, {}
for _, key in ipairs(keys) do
  local lease, problem = attempt(lock_read, t, key)
  if problem then
    left[#left + 1] = problem
  elseif not lease or lease.owner ~= owner then
    t.disown[#t.disown + 1] = owner .. '\255' .. key
  elseif lease.note == '-' then
    lock_drop(t, key, lease)
    if lease.live then
      local handed = queued and attempt(hand_off, w, KEYS[4], key, '')
      if handed then lock_grant(t, key, nil, handed) end
      released = released + 1
    end
  end
end

local cursor = #keys == limit and keys[limit] or ''
lock_scatter(t)
reply_put(replies, call, released .. ' ' .. cursor)
reply_close(replies)
return {released, cursor, unpack(left)}
