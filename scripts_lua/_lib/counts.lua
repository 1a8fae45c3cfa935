-- _lib/counts: how often what became of a job's slots, since it was declared. The ledger forgets, these don't.
--
--   counts  hash  JOB -> "FIRED DONE FAILED LOST SKIPPED MISSED CANCELLED"; JOB \255 -> see _lib/past; \255 and
--                \255\255 -> see _lib/events; '' -> nothing that anybody reads, see firing_hash
--   stats   hash  "missed CODE", "skipped CODE" -> how often that was so in this shard, see _lib/reasons
-- needs: _lib/task _lib/past

local STANDS = {  -- where each of them does
  fired = '^()(%d+)()', done = '^%d+ ()(%d+)()', failed = '^%d+ %d+ ()(%d+)()', lost = '^%d+ %d+ %d+ ()(%d+)()',
  skipped = '^%d+ %d+ %d+ %d+ ()(%d+)()', missed = '^%d+ %d+ %d+ %d+ %d+ ()(%d+)()', cancelled = '^%d+ %d+ %d+ %d+ %d+ %d+ ()(%d+)()',
}

-- The first that is counted of a job. If its ledger had something before, the counts were lost, and with them what it lacks.
local function counts_begin(job)
  local first = redis.call('ZRANGEBYLEX', q.order[KEY], '[' .. job .. '\255', '(' .. job .. '\255\255', 'LIMIT', 0, 1)[1]
  if first and q.order[first] == nil then
    local lacks = past_parse(read(q.counts, job .. '\255'))
    lacks.since, lacks.past = 0, now
    write(q.counts, job .. '\255', past_text(lacks))
  end
  return '0 0 0 0 0 0 0'
end

-- Only of a job that has counts, or what ends after its job was deleted would make some that nobody forgets. `begins`: it has them from now on.
-- `code`: the reason by which that is counted as well. Counts that can't be read stop nobody: they are left as they are.
local function counted(job, what, by, begins, code)
  if code then tally(q.stats, what .. ' ' .. code, by) end
  local text = read(q.counts, job) or begins and counts_begin(job)
  if not text then return end
  local from, number, to = string.match(text, STANDS[what])
  if number then write(q.counts, job, string.sub(text, 1, from - 1) .. int(number + (by or 1)) .. string.sub(text, to)) end
end

-- Whether a job was fired as often as it is to be. `limit` 0: it has no end.
local function counted_out(job, limit)
  return limit > 0 and tonumber(string.match(read(q.counts, job) or '0', '^%d+') or 0) >= limit
end

-- Forget all of this: the job is gone.
local function counts_drop(job)
  erase(q.counts, job)
  erase(q.counts, job .. '\255')
end
