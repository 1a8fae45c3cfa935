-- claim/fail: the work of each claim failed; the next acquire gets it at once, as its next attempt.
--
-- KEYS[1..10] of _lib/claim
-- ARGV[1] queue  str
-- ARGV[2] key    str
-- ARGV[3] owner  str
-- ARGV[4] fence  int
-- ARGV[5] call   id    of this call; the same again is the same call, repeated
-- ARGV[6] error  json  told to whoever acquires it next
-- Batch: ARGV[1..6] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE                                       failed by this call
--          UNKNOWN EXPIRED FINISHED ANOTHERS STALE    why not: see _lib/results; EXPIRED: it was swept
--
-- Accepted after it ran out while nobody took it over, as claim/complete is.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/claim

local out = each(6, function(i)
  local member, call = ARGV[i] .. '\255' .. ARGV[i + 1], ARGV[i + 4]
  local claim = claim_read(member)
  local said = RESULT.DONE
  if not (claim and lease_freed_by(claim.lease, call)) then
    local refusal = claim_refusal(claim, ARGV[i + 2], tonumber(ARGV[i + 3]))
    if refusal then
      said = refusal
    else
      claim_end(member, claim, 'failed', claim.attempt, FORGET_MS, call)
      redis.call('HSET', c.results, member, ARGV[i + 5])
    end
  end
  return said
end)

return out
