-- claim/renew: set the time left of each claim anew, for its live owner and fence only; what ran out is never revived.
--
-- KEYS[1..11] of _lib/claim
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
-- include: _lib/claim

claim_groups(6)
gather(c.marks, {'horizon', 'settled'})
local calls = {}
for i = 5, #ARGV, 6 do
  if ARGV[i] ~= '-' then calls[#calls + 1] = ARGV[i] end
end
if #calls > 0 then reply_gather(replies, calls) end
local _, settled = claim_settled()
return each(6, function(i)
  local member, call = ARGV[i] .. '\255' .. ARGV[i + 1], ARGV[i + 4]
  local lease = lease_read(t, member)
  local said = call ~= '-' and claim_said(call) or claim_refusal(member, lease, ARGV[i + 2], tonumber(ARGV[i + 3]))
    or not lease.live and RESULT.EXPIRED
  if said then return said end
  if lease.expires <= settled then enter(c.order, member, 0) end  -- it had run out when the clock was ahead
  lease_renew(t, member, lease, tonumber(ARGV[i + 5]))
  claim_outlive(lease.expires + FORGET_MS)
  tally(c.stats, 'renewed')
  if call ~= '-' then write(replies, call, int(lease.expires)) end
  return lease.expires
end)
