-- backfill/take: backfills that something is to be done for, hidden from the others for a while: one instance goes on with each.
--
-- KEYS[1] job           hash
-- KEYS[2] backfill      hash  see _lib/backfill
-- KEYS[3] backfill:due  zset
-- KEYS[4] job:counts    hash
-- ARGV[1] limit    int
-- ARGV[2] hide_ms  int  if the caller dies, they come back after this time
--
-- Returns  {now_ms, next_due_ms, *jobs}  jobs: whose backfills they are; next_due_ms: of the first that is not due; 0: there is none
--
-- Hiding only saves work: it is backfill/step that compares. One that has ended a week ago, or whose job is gone, is forgotten.
-- include: _lib/backfill _lib/past

local defs, backfills, when, counts = page(KEYS[1]), page(KEYS[2]), index(KEYS[3]), page(KEYS[4])
local there = redis.call('HLEN', KEYS[2])
if there > redis.call('ZCARD', KEYS[3]) then  -- some were lost
  for _, job in ipairs(redis.call('HRANDFIELD', KEYS[2], 100)) do
    if not read(when, job) then enter(when, job, now) end
  end
end
local jobs = due(when, now, tonumber(ARGV[1]))
local following, out = redis.call('ZRANGE', KEYS[3], #jobs, #jobs, 'WITHSCORES')[2], {now, 0}
for _, part in ipairs({defs, backfills, counts}) do gather(part, jobs) end
for _, job in ipairs(jobs) do
  local line = read(backfills, job)
  local b = line and attempt(backfill_parse, backfills, job, line)
  if not line or not read(defs, job) or b and backfill_over(b) then
    erase(backfills, job)
    leave(when, job)
    local said = read(counts, job .. '\255')
    if said then
      local lacks = past_parse(said)
      lacks.from, lacks.to = 0, 0
      write(counts, job .. '\255', past_text(lacks))
    end
  else
    enter(when, job, now + tonumber(ARGV[2]))
    out[#out + 1] = job
  end
end
out[2] = tonumber(following or '0')
return out
