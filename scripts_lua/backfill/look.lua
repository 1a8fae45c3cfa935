-- backfill/look: how many of these slots a backfill would fire, if it began now.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1] job      str
-- ARGV[2] slots    text  a line each
-- ARGV[3] unknown  int   1: also those of which nobody knows whether they ran
--
-- Returns  {fires, known, left}  known: they have run, or are at it; left: nobody knows whether they ran
-- include: _lib/backfilling

local job, said = ARGV[1], {known = 0, left = 0}
local lacks, low, high = ledger_past(job), '[' .. job .. '\255', '(' .. job .. '\255\255'
past_look(lacks, read(q.counts, job), redis.call('ZLEXCOUNT', KEYS[8], low, high), now)
local b, fires = {unknown = tonumber(ARGV[3]), since = lacks.since, past = lacks.past}, 0
for slot in string.gmatch(ARGV[2], '%d+') do
  local left = backfill_verdict(job, tonumber(slot), b)
  if left then said[left] = said[left] + 1 else fires = fires + 1 end
end
return {fires, said.known, said.left}
