-- claim/release: give each claim back as if it had not been acquired: its attempt does not count.
--
-- KEYS[1..11] of _lib/claim
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
-- include: _lib/claim

gather(c.past, claim_groups(6))
return each(6, function(i)
  local member, call, token = ARGV[i] .. '\255' .. ARGV[i + 1], ARGV[i + 4], ARGV[i + 5]
  local lease, fence = lease_read(t, member), tonumber(ARGV[i + 3])
  if token ~= '-' then fence = lease and lease.calls == token and lease.fence end
  local refusal = claim_refusal(member, lease, ARGV[i + 2], fence) or token == '-' and not lease.live and RESULT.EXPIRED
  if refusal then return claim_said(call, refusal) end
  claim_release(member, lease)
  write(replies, call, int(RESULT.DONE))
  return RESULT.DONE
end)
