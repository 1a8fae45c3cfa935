-- job/get: the definitions of jobs, where they stand, and how often what became of their slots.
--
-- KEYS[1] job         hash  job -> "REV JSON"
-- KEYS[2] job:slot    hash  job -> "SLOT DUE REV RULES"
-- KEYS[3] job:open    hash
-- KEYS[4] job:counts  hash  see _lib/counts
-- KEYS[5] job:paused  hash  see _lib/pause
-- KEYS[6] backfill    hash  see _lib/backfill
-- ARGV[1] job         str
-- Batch: ARGV[1..1] repeat, one group a call, at most 256 a run.
--
-- Returns  {definition, slot, open, counts, paused, backfill}  "REV JSON", "SLOT DUE REV RULES" (empty, or SLOT is -1: it has ended), the unfinished
--                                            task's id or empty, counts or empty, the pause or empty, its backfill or empty
--          {}                                no such job
-- include: _lib/run

local pages = {page(KEYS[1]), page(KEYS[2]), page(KEYS[3]), page(KEYS[4]), page(KEYS[5]), page(KEYS[6])}
for _, known in ipairs(pages) do gather(known, ARGV) end
return each(1, function(i)
  local out = {}
  if not read(pages[1], ARGV[i]) then return out end
  for at, known in ipairs(pages) do out[at] = read(known, ARGV[i]) or '' end
  return out
end)
