-- claim/acquire: begin a unit of work unless somebody is at it, or it is done and held; take over what ran out.
--
-- KEYS[1..10] of _lib/claim
-- ARGV[1] queue     str
-- ARGV[2] key       str
-- ARGV[3] owner     str
-- ARGV[4] token     id   of this call; the same again is the same call, repeated
-- ARGV[5] lease_ms  int
-- Batch: ARGV[1..5] repeat, one group a call, at most 64 a run.
--
-- Returns  {said=DONE, queue, key, owner, fence, expires_at_ms, attempt, previous, error}  claimed by this call
--          {said=BUSY, owner, expires_at_ms}                      somebody's, be it the same owner's
--          {said=HELD, owner, completed_at_ms, until_ms, result}  done, and held until then
--          previous: whose it was and ran out, else empty; error: JSON, how it last failed, else empty
--
-- Test and set are one script: of many racers for what is free or ran out, one gets it. Each run also forgets a few old ones.
-- include: _lib/lease1 _lib/claim

local out = each(5, function(i)
  local member, owner, token = ARGV[i] .. '\255' .. ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local claim = claim_read(member)
  local claimed = claim and claim.state == 'claimed'
  local held = claim and claim.state == 'done' and claim.till > now
  local refused_before = claim and string.find(',' .. claim.refused, ',' .. token .. ',', 1, true)
  local reply

  if (claimed and claim.lease.live and claim.lease.token ~= token) or held then
    if claimed then
      if claim.lease.ahead then lease_put(t, member, claim.lease) end
      reply = {RESULT.BUSY, claim.lease.owner, claim.lease.expires}
    else
      reply = {RESULT.HELD, claim.lease.owner, claim.since, claim.till, redis.call('HGET', c.results, member) or 'null'}
    end
    if not refused_before then
      claim_count('contended', 1)
      claim.refused = string.sub(token .. ',' .. claim.refused, 1, 160)
      claim_write(member, claim)
    end
  else
    if not (claimed and claim.lease.token == token) then
      if refused_before then claim_count('contended', -1) end  -- a reply that nobody heard: this one counts
      claim = claim_grant(member, claim, owner, token, tonumber(ARGV[i + 4]))
    end
    reply = claim_row(member, claim)
    table.insert(reply, 1, RESULT.DONE)
  end
  return reply
end)

-- A few more than were begun, so that what is over goes faster than it comes.
claim_settle(#out + 2)
claim_forget(#out + 2)
return out
