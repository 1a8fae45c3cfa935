-- task/counts: the queues, and how many tasks they hold; one queue, or a page of them.
--
-- KEYS[1]  task:ready    zset
-- KEYS[2]  task:delayed  zset
-- KEYS[3]  task:dead     zset
-- KEYS[4]  task:live     zset
-- KEYS[5]  task:stats    hash
-- ARGV[1]  queue         str   empty: all that hold any
-- ARGV[2]  after         str   the cursor of the page before; empty: the first page
-- ARGV[3]  limit         int
--
-- Returns  {now_ms, running, stats, cursor, *queues}  running: of all queues, but those leased as a job's lock. stats: how often a task was made, begun, done,
--          retried, failed, lost, cancelled, and left to others before its function ran, since the shard was first used; and how many of those that were made were fired for a slot. An empty cursor: this was the last page.
--          queues: each {queue, ready, delayed, dead}
-- include: _lib/clock

local stats = redis.call('HMGET', KEYS[5], 'spawned', 'begun', 'done', 'retried', 'failed', 'lost', 'cancelled', 'left', 'fired')
stats[1] = (tonumber(stats[1] or '0') or 0) + (tonumber(stats[9] or '0') or 0)
local out = {now, redis.call('ZCARD', KEYS[4]), stats, ''}

local PLACES = {KEYS[1], KEYS[2], KEYS[3]}

-- `known`: by place the queue that comes next there; nil: nobody has looked. Where that is another this one has none.
local function add(queue, known)
  local low, high = '[' .. queue .. '\255', '(' .. queue .. '\255\255'
  local function has(place, to)
    if known and known[place] ~= queue then return 0 end
    return redis.call('ZLEXCOUNT', PLACES[place], low, to or high)
  end
  local delayed = has(2)
  local due = delayed > 0 and has(2, '(' .. queue .. '\255' .. string.format('%015.0f', now + 1)) or 0
  out[#out + 1] = {queue, has(1) + due, delayed - due, has(3)}
end

local function first(key, after)
  local member = redis.call('ZRANGEBYLEX', key, after == '' and '-' or '(' .. after .. '\255\255', '+', 'LIMIT', 0, 1)[1]
  return member and string.match(member, '^([^\255]+)') or false
end

if ARGV[1] ~= '' then
  add(ARGV[1])
else
  local after, known = ARGV[2], {}
  for _ = 1, tonumber(ARGV[3]) do
    local soonest
    for place = 1, 3 do
      if known[place] == nil or known[place] == after then known[place] = first(PLACES[place], after) end
      local queue = known[place]
      -- As members are ordered: q\255 comes after any longer name that begins with q.
      if queue and (not soonest or queue .. '\255' < soonest .. '\255') then soonest = queue end
    end
    if not soonest then break end
    add(soonest, known)
    after = soonest
    if #out - 4 == tonumber(ARGV[3]) then out[4] = soonest end
  end
end
return out
