-- claim/fail: the work of each claim failed; the next acquire gets it at once, as its next attempt.
--
-- KEYS[1..11] of _lib/claim
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
-- include: _lib/claim

claim_groups(6)
return each(6, function(i)
  local member = ARGV[i] .. '\255' .. ARGV[i + 1]
  return claim_conclude(member, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], 'failed', nil, FORGET_MS, ARGV[i + 5])
end)
