-- claim/release: give each claim back as if it had not been acquired: its attempt does not count.
--
-- KEYS[1..10] of _lib/claim
-- ARGV[1] queue  str
-- ARGV[2] key    str
-- ARGV[3] owner  str
-- ARGV[4] fence  int  0: whichever the call `token` was given
-- ARGV[5] call   id   of this call; the same again is the same call, repeated
-- ARGV[6] token  id   of the call that acquired it, to undo that; "-": whichever
-- Batch: ARGV[1..6] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE                                       released by this call
--          UNKNOWN EXPIRED FINISHED ANOTHERS STALE    why not: see _lib/results; STALE: of another call, too
--
-- What ran out stays to be taken over, as the work may have begun; but a call that is undone began none.
-- Under OOM: runs.
-- include: _lib/lease1 _lib/claim

local out = each(6, function(i)
  local member, token, call = ARGV[i] .. '\255' .. ARGV[i + 1], ARGV[i + 5], ARGV[i + 4]
  local claim, fence = claim_read(member), tonumber(ARGV[i + 3])
  if claim and token ~= '-' then fence = claim.lease.token == token and claim.lease.fence end
  local said = RESULT.DONE
  if not (claim and lease_freed_by(claim.lease, call)) then
    said = claim_refusal(claim, ARGV[i + 2], fence)
    if not said and not claim.lease.live and token == '-' then said = RESULT.EXPIRED end
    if not said then
      claim_release(member, claim, call)
      said = RESULT.DONE
    end
  end
  return said
end)

return out
