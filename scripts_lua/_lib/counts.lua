-- _lib/counts: how often what became of a job's slots, since it was declared. The ledger forgets, these don't.
--
--   counts  hash  JOB -> "FIRED DONE FAILED LOST SKIPPED MISSED CANCELLED"
-- needs: _lib/task

local COUNTED = {fired = 1, done = 2, failed = 3, lost = 4, skipped = 5, missed = 6, cancelled = 7}

-- Only of a job that has counts, or what ends after its job was deleted would make some that nobody forgets. `begins`: it has them from now on.
-- Counts that can't be read stop nobody: they are left as they are.
local function counted(job, what, by, begins)
  local text = read(q.counts, job) or begins and '0 0 0 0 0 0 0'
  if not text then return end
  local counts = {string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')}
  if not counts[7] then return end
  local at = COUNTED[what]
  counts[at] = int(math.max(counts[at] + (by or 1), 0))
  write(q.counts, job, table.concat(counts, ' '))
end
