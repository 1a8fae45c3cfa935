-- task/mend: put tasks where their records say that they stand, which were lost from there: some of all, picked at random.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job           hash  job -> "REV JSON"
-- ARGV[1]  limit         int  how many to look at; bounds the script's time
--
-- Returns  mended  how many were put right
--
-- Keys and entries of them are evicted, or deleted by hand. What waits in no queue would be claimed by nobody, what is leased no more
-- would run or stop for ever, and what ended would never be forgotten. A slot that no ledger lists is listed again.
-- Under OOM: runs.
-- include: _lib/ending

local mended, defs = 0, page(KEYS[28])

local function stands(x, member, score)
  if read(x, member) then return end
  enter(x, member, score)
  mended = mended + 1
end

local function mend(id)
  local record = task_read(id)
  local job, slot = job_of(id)
  local guard = guard_of(id)
  if not record then return end
  if record.state == 'waiting' then
    local ready, delayed = places_of(id, record)
    if read(q.ready, ready) or read(q.delayed, delayed) or (guard and line_has(guard, id)) then return end
    task_queue(id, record, math.max(record.due, now))
    mended = mended + 1
  elseif record.state == 'running' or record.state == 'stopping' then
    if record.till > 0 then stands(q.untils, id, record.till) end
    if attempt_lease(id, record) then return end
    task_lost(id, record, REASON.LEASE_DELETED)
    mended = mended + 1
  elseif job and not read(q.order, ledger_member(job, slot)) then
    if read(defs, job) then ledger_list(id, job, slot, record) else task_forget(id, record) end
    mended = mended + 1
  elseif job and record_forget(record) > 0 and not read(q.ended, id) then
    ledger_until(id, record)
    mended = mended + 1
  elseif (record.state == 'dead' or job and record.state == 'cancelled') and record.json ~= '' then
    stands(q.ended, id, now + DEAD_MS)
    if record.state == 'dead' then stands(q.dead, dead_member(id, record), 0) end
  elseif not job then
    stands(q.ended, id, now + policies(id, record).retention_ms)
  end
end

local ids = redis.call('HRANDFIELD', KEYS[1], tonumber(ARGV[1]))
if not ids or #ids == 0 then return 0 end  -- memory:// answers nil
ending_gather(ids)
gather(q.ended, ids)
for _, id in ipairs(ids) do attempt(mend, id) end
return mended
