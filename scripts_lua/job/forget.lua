-- job/forget: forget what jobs that were removed have left behind: their ledgers, and the tasks of them that wait.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job         hash  job -> "REV JSON"
-- KEYS[29] job:origin  zset  see _lib/origin
-- ARGV[1]  limit       int   ledger entries, all in all
--
-- Returns  DONE  some is left: ask again
--          NO    nothing is
-- Under OOM: runs.
--
-- A job that was declared again since keeps what it finds.
-- include: _lib/removal

local defs, owners, room = page(KEYS[28]), index(KEYS[29]), tonumber(ARGV[1])
local marks = range(owners, '[\255', '(\255\255', 20)
for _, mark in ipairs(marks) do
  local job = string.sub(mark, 2)
  if read(defs, job) then
    leave(owners, mark)
  else
    room = room - 5 - job_clear(owners, job, math.max(room, 1))
  end
  if room <= 0 then return RESULT.DONE end
end
return #marks == 20 and RESULT.DONE or RESULT.NO
