-- claim/acquire: begin a unit of work unless somebody is at it, or it is remembered as done; take over what ran out.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1] queue     str
-- ARGV[2] key       str
-- ARGV[3] owner     str
-- ARGV[4] token     id   of this call; the same again is the same call, repeated
-- ARGV[5] lease_ms  int
-- Batch: ARGV[1..5] repeat, one group a call, at most 64 a run.
--
-- Returns  {said=DONE, queue, key, owner, fence, expires_at_ms, attempt, previous, error}  claimed by this call
--          {said=BUSY, owner, expires_at_ms}                      somebody's, be it the same owner's
--          {said=REMEMBERED, owner, completed_at_ms, until_ms, result}  done, and remembered until then
--          previous: whose it was and ran out, else empty; error: JSON, how it last failed, else empty
--
-- Test and set are one script: of many racers for what is free or ran out, one gets it. Each run also forgets a few old ones.
-- include: _lib/claim

local free = {}
for _, member in ipairs(claim_groups(5)) do
  local ends = read(t.live, member)
  if not ends or ends <= now then free[#free + 1] = member end
end
gather(c.past, free)  -- how it last ended is told to nobody whom it is refused, and may be long
gather(c.marks, {'horizon', 'settled'})
local out = each(5, function(i)
  local member, call = ARGV[i] .. '\255' .. ARGV[i + 1], ARGV[i + 3]
  local lease = lease_read(t, member)
  local again = lease and lease.calls == call
  if lease and lease.live and not again then
    tally(c.stats, 'contended')
    return {RESULT.BUSY, lease.owner, lease.expires}
  end
  local past = past_read(member)
  if not lease and past and past.state == 'done' and past.till > now then
    tally(c.stats, 'contended')
    return {RESULT.REMEMBERED, past.owner, past.since, past.till, past.json}
  end
  if not again then lease, past = claim_grant(member, lease, past, ARGV[i + 2], call, tonumber(ARGV[i + 4])) end
  local reply = claim_row(member, lease, past)
  table.insert(reply, 1, RESULT.DONE)
  return reply
end)

claim_forget(#out + 2)  -- a few more than were begun, so that what is over goes faster than it comes
return out
