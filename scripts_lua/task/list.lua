-- task/list: a page of the ids of tasks: of all of a place, or of those that may be what is asked for.
--
-- KEYS[1]  task:ready    zset
-- KEYS[2]  task:delayed  zset
-- KEYS[3]  task:dead     zset
-- KEYS[4]  task:live     zset
-- KEYS[5]  task:ended    zset
-- KEYS[6]  lock          hash
-- KEYS[7]  lock:live     zset
-- KEYS[8]  task          hash
-- ARGV[1]  place         str   ready, delayed, dead: in order, of a queue; running: by expiry; jobs: as running, those leased as a job's
--                              lock; ended: the latest to be forgotten first
-- ARGV[2]  queue         str   empty: of all; running, jobs and ended ones are always of all
-- ARGV[3]  after         str   the cursor of the page before; empty: the first page
-- ARGV[4]  limit         int
-- ARGV[5]  texts         list  what the record has to hold: a name, a queue, as JSON has them
-- ARGV[6]  job           str   of a slot that has ended, whose record has no JSON: its job; empty: it is none that is asked for
-- ARGV[7]  states        list  in one of which the record has to be; none: in any
--
-- Returns  {cursor, looked, *ids}  an empty cursor: this was the last page. looked: at so many. There may be fewer than `limit`
--
-- Texts are looked for in a record's JSON, which holds each only where it counts.
-- include: _lib/clock _lib/lease

local LOOKS = 500
local place, queue, after, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local texts, job, states = ARGV[5] ~= '[]' and cjson.decode(ARGV[5]) or {}, ARGV[6] .. '@', nil
if ARGV[7] ~= '[]' then
  states = {}
  for _, state in ipairs(cjson.decode(ARGV[7])) do states[state] = true end
end
local filters = #texts > 0 or states ~= nil
local most, out = filters and LOOKS or limit, {'', 0}

local function holds(text, id)
  if states and not states[string.match(text, '^%l+')] then return false end
  local json = #texts > 0 and string.find(text, '\255{', 1, true)
  if #texts > 0 and not json then return #job > 1 and string.sub(id, 1, #job) == job end
  for _, one in ipairs(texts) do
    if not string.find(text, one, json, true) then return false end
  end
  return true
end

-- The first of these that may be what is asked for, up to `limit`; empty: there is no id. Returns how many were looked at.
local function keep(ids)
  local records = filters and #ids > 0 and redis.call('HMGET', KEYS[8], unpack(ids))
  for i, id in ipairs(ids) do
    if id ~= '' and (not records or records[i] and holds(records[i], id)) then out[#out + 1] = id end
    if #out - 2 == limit then return i end
  end
  return #ids
end

if place == 'running' or place == 'jobs' or place == 'ended' then
  local from = tonumber(after) or 0
  local key = place == 'running' and KEYS[4] or place == 'jobs' and KEYS[7] or KEYS[5]
  local ids = place == 'ended' and redis.call('ZREVRANGE', key, from, from + most - 1) or redis.call('ZRANGE', key, from, from + most - 1)
  local leases, found = place == 'jobs' and #ids > 0 and redis.call('HMGET', KEYS[6], unpack(ids)), #ids
  for i, id in ipairs(leases and ids or {}) do
    local lease = lease_parse(leases[i] or '', now)
    ids[i] = lease and lease_task(id, lease) or ''
  end
  out[2] = keep(ids)
  if found == most or out[2] < found then out[1] = int(from + out[2]) end
else
  local key = place == 'ready' and KEYS[1] or place == 'delayed' and KEYS[2] or KEYS[3]
  local low = after ~= '' and '(' .. after or queue ~= '' and '[' .. queue .. '\255' or '-'
  local members = redis.call('ZRANGEBYLEX', key, low, queue ~= '' and '(' .. queue .. '\255\255' or '+', 'LIMIT', 0, most)
  local width, ids = place == 'dead' and 15 or 33, {}
  for i, member in ipairs(members) do
    local at = string.find(member, '\255', 1, true)
    ids[i] = at and string.sub(member, at + 1 + width) or ''
  end
  out[2] = keep(ids)
  if #members == most or out[2] < #members then out[1] = members[out[2]] end
end
return out
