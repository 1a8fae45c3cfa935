-- claim/get: each claim as it stands now, if it is live.
--
-- KEYS[1..10] of _lib/claim
-- ARGV[1] queue  str
-- ARGV[2] key    str
-- Batch: ARGV[1..2] repeat, one group a call, at most 128 a run.
--
-- Returns  {queue, key, owner, fence, expires_at_ms, attempt, previous, error}  claimed, see claim/acquire
--          {}                                                                   not claimed, or it ran out
-- include: _lib/lease1 _lib/claim

local out = each(2, function(i)
  local member = ARGV[i] .. '\255' .. ARGV[i + 1]
  local claim = claim_read(member)
  return claim and claim.state == 'claimed' and claim.lease.live and claim_row(member, claim) or {}
end)
return out
