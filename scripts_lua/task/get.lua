-- task/get: what is known of each task.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  id            str
-- Batch: ARGV[1..1] repeat, one group a call, at most 100 a run.
--
-- Returns  {record, lease, expires_at_ms, failure, payload, result}  record as _lib/record has it, lease as _lib/lease: of its running
--          attempt; JSON; each empty, where there is none
-- include: _lib/attempt

attempt_gather(ARGV)
for _, p in ipairs({q.failures, q.params, q.results}) do gather(p, ARGV) end
return each(1, function(i)
  local id = ARGV[i]
  local text = read(q.tasks, id)
  local record = text and record_parse(text)
  local row = {text or '', '', 0, read(q.failures, id) or '', read(q.params, id) or '', read(q.results, id) or ''}
  if record and (record.state == 'running' or record.state == 'stopping') then
    local t, key = attempt_place(id, record)
    row[2], row[3] = read(t.records, key) or '', read(t.live, key) or 0
  end
  return row
end)
