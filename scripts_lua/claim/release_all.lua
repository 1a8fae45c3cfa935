-- claim/release_all: give back what an owner has claimed, up to `limit` at a time.
--
-- KEYS[1..10] of _lib/claim
-- KEYS[11] reply:CALL  string  PX: what this call answered, for when it is repeated
-- ARGV[1]  owner       str
-- ARGV[2]  call        id      of this call; the same again is the same call, repeated
-- ARGV[3]  limit       int     bounds the script's time; ask again while more is 1
--
-- Returns  {released, more, *unreadable}  live ones only are counted; more is 1 when some are left; unreadable: see _lib/lease1
--
-- The owner's own index makes this O(owned): nothing is scanned, and no other owner's claim is looked at; but what a clock that
-- was set back has made live again, whoever's, is first entered there anew.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/claim

local owner, call, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local said = redis.call('GET', KEYS[11])
if said then
  local released, more = string.match(said, '^(%d+) (%d)$')
  return {tonumber(released), tonumber(more)}
end

local unentered = claim_revive(limit)
local members = redis.call('ZRANGEBYLEX', t.owned, '[' .. owner .. '\255', '(' .. owner .. '\255\255', 'LIMIT', 0, limit)
local released, left = 0, {}
for _, owned in ipairs(members) do
  local member = string.sub(owned, #owner + 2)
  local claim, problem = attempt(claim_read, member)
  if problem then
    left[#left + 1] = problem
  elseif claim and claim.state == 'claimed' and claim.lease.live and claim.lease.owner == owner then
    claim_release(member, claim, call)
    released = released + 1
  elseif claim and claim.state == 'claimed' and claim.lease.owner == owner then
    claim_ran_out(member, claim.lease)
  else
    redis.call('ZREM', t.owned, owned)
  end
end

local more = (unentered or (#members == limit and #left < limit)) and 1 or 0
redis.call('SET', KEYS[11], released .. ' ' .. more, 'PX', TOMBSTONE_MS)
return {released, more, unpack(left)}
