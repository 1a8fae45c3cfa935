-- claim/renew: set the time left of each claim anew, for its live owner and fence only; what ran out is never revived.
--
-- KEYS[1..10] of _lib/claim
-- ARGV[1] queue     str
-- ARGV[2] key       str
-- ARGV[3] owner     str
-- ARGV[4] fence     int
-- ARGV[5] call      id   of this call; the same again is the same call, repeated; "-": each is a renewal of its own
-- ARGV[6] lease_ms  int
-- Batch: ARGV[1..6] repeat, one group a call, at most 64 a run.
--
-- Returns  expires_at_ms                              renewed
--          UNKNOWN EXPIRED FINISHED ANOTHERS STALE    why not: see _lib/results
-- Under OOM: runs.
-- include: _lib/lease1 _lib/claim

local out = each(6, function(i)
  local member, call = ARGV[i] .. '\255' .. ARGV[i + 1], ARGV[i + 4]
  local claim = claim_read(member)
  local said = claim_refusal(claim, ARGV[i + 2], tonumber(ARGV[i + 3]))
  if not said and not claim.lease.live and (call == '-' or claim.renewed ~= call) then said = RESULT.EXPIRED end
  if said then
    return said
  elseif call ~= '-' and claim.renewed == call then
    return claim.lease.expires
  else
    claim.lease.expires = now + tonumber(ARGV[i + 5])
    lease_put(t, member, claim.lease)
    claim_unexpire(member, claim.lease)
    if call ~= '-' then
      claim.renewed = call
      claim_write(member, claim)
    end
    claim_count('renewed', 1)
    furthest = math.max(furthest, claim.lease.expires + FORGET_MS)
    return claim.lease.expires
  end
end)

return out
