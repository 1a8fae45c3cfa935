-- claim/complete: the work of each claim is done; for `hold_ms` to come, `acquire` answers so.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1] queue    str
-- ARGV[2] key      str
-- ARGV[3] owner    str
-- ARGV[4] fence    int
-- ARGV[5] call     id    of this call; the same again is the same call, repeated
-- ARGV[6] result   json  kept as long as it is remembered
-- ARGV[7] hold_ms  int   0: not at all, the key is free at once
-- Batch: ARGV[1..7] repeat, one group a call, at most 64 a run.
--
-- Returns  DONE                                       done by this call
--          UNKNOWN EXPIRED FINISHED ANOTHERS STALE    why not: see _lib/results; EXPIRED: it was swept
--
-- Accepted after it ran out while nobody took it over: the work was done, and doing it again would be worse. The fence keeps
-- one who was overtaken from ending the claim of its successor, on the same owner too.
-- Under OOM: runs.
-- include: _lib/claim

claim_groups(7)
return each(7, function(i)
  local member, hold_ms = ARGV[i] .. '\255' .. ARGV[i + 1], tonumber(ARGV[i + 6])
  return claim_conclude(member, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], 'done', 0, hold_ms, hold_ms > 0 and ARGV[i + 5] or '')
end)
