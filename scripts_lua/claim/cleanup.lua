-- claim/cleanup: end up to `limit` claims that ran out unfinished; whoever acquires one next takes over from nobody.
--
-- KEYS[1..10] of _lib/claim
-- KEYS[11] reply:CALL  string  PX: what this call answered, for when it is repeated
-- ARGV[1]  call        id      of this call; the same again is the same call, repeated
-- ARGV[2]  limit       int     bounds the script's time; ask again while more is 1
--
-- Returns  {swept, more, *unreadable}  more is 1 when there may be others; unreadable: see _lib/lease1
-- Under OOM: runs.
-- include: _lib/lease1 _lib/claim

local call, limit = ARGV[1], tonumber(ARGV[2])
local said = redis.call('GET', KEYS[11])
if said then
  local swept, more = string.match(said, '^(%d+) (%d)$')
  return {tonumber(swept), tonumber(more)}
end

claim_settle(limit)
local members = redis.call('ZRANGEBYSCORE', c.expired, '-inf', int(now), 'LIMIT', 0, limit)
local swept, left = 0, {}
for _, member in ipairs(members) do
  local claim, problem = attempt(claim_read, member)
  if problem then
    left[#left + 1] = problem
    claim_aside(member)
  elseif claim and claim.state == 'claimed' and not claim.lease.live then
    claim_end(member, claim, 'swept', 0, 0, call)
    swept = swept + 1
  elseif claim and claim.state == 'claimed' then
    claim_unexpire(member, claim.lease)
  else
    redis.call('ZREM', c.expired, member)
  end
end

claim_forget(limit)
local more = #members == limit and 1 or 0
redis.call('SET', KEYS[11], swept .. ' ' .. more, 'PX', TOMBSTONE_MS)
return {swept, more, unpack(left)}
