-- claim/expired: a page of the claims that ran out unfinished and that nobody has taken over, the oldest first.
--
-- KEYS[1..10] of _lib/claim
-- ARGV[1] skip   int  how many were in the pages before
-- ARGV[2] limit  int  bounds the script's time
--
-- Returns  {{queue, key, owner, fence, expires_at_ms, attempt, previous, error}, ...}  as claim/get has them; fewer than `limit`: this
--          was the last page
--
-- Changes no claim; it only moves those that ran out to the index in which they are looked for.
-- include: _lib/lease1 _lib/claim

local skip, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
claim_settle(limit)
local out = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', c.expired, '-inf', int(now), 'LIMIT', skip, limit)) do
  local claim, problem = attempt(claim_read, member)
  out[#out + 1] = problem or claim and claim.state == 'claimed' and not claim.lease.live and claim_row(member, claim) or {}
end
return out
