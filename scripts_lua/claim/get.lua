-- claim/get: each claim as it stands now, if it is live.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1] queue  str
-- ARGV[2] key    str
-- Batch: ARGV[1..2] repeat, one group a call, at most 128 a run.
--
-- Returns  {queue, key, owner, fence, expires_at_ms, attempt, previous, error}  claimed, see claim/acquire
--          {}                                                                   not claimed, or it ran out
-- include: _lib/claim

gather(c.past, claim_groups(2))
return each(2, function(i)
  local row, lease = claim_look(ARGV[i] .. '\255' .. ARGV[i + 1])
  return lease and lease.live and row or {}
end)
