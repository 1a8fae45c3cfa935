-- claim/expired: a page of the claims that ran out unfinished and that nobody has taken over, the oldest first.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1] skip   int  how many were in the pages before
-- ARGV[2] limit  int  bounds the script's time
--
-- Returns  {{queue, key, owner, fence, expires_at_ms, attempt, previous, error}, ...}  as claim/get has them; fewer than `limit`: this
--          was the last page
--
-- Changes no claim.
-- include: _lib/claim

local skip, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
claim_mend(limit)
local out = {}
for i, member in ipairs(claim_gather(due(t.live, now, limit, skip))) do
  local row, problem = attempt(claim_look, member)
  out[i] = problem or row or {}
end
return out
