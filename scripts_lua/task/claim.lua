-- task/claim: begin an attempt of up to `limit` tasks of some queues, after taking back what expired.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  queues        list    names; they take turns, beginning with the first
-- ARGV[2]  owner         str
-- ARGV[3]  call          id      of this call; the same again is the same call, repeated
-- ARGV[4]  limit         int
-- ARGV[5]  lease_ms      int
-- ARGV[6]  lost          list    ids of calls whose replies were lost: begin with what they had started
-- ARGV[7]  strangers     list    names of functions that the caller lacks: their tasks are passed over
-- ARGV[8]  after         json    queue -> how far it had passed strangers in the call before; '' -> how far it had looked for `lost`
-- ARGV[9]  running       list    ids of the caller's tasks that it may have lost, and whose bodies still run: not taken back
-- ARGV[10] clock_ms      int     what the caller takes the server's clock to show: if that is ahead, its tasks are not taken back; 0: no idea
--
-- Returns  {now_ms, wake_ms, after, *tasks}
--          wake_ms: when there may be more without anybody saying so; 0: never. after: as given, for the next call.
--          tasks: each {id, max, json, attempt, fence, expires_at_ms, due_ms, until_ms, payload}, or what can't be read, which was put
--          aside. json: of its record. payload: params and headers, or empty
--
-- Order: priority, then due time, then the order in which they came.
-- Under OOM: runs.
-- Rarely: sweep_settle sweep_attempts sweep_untils sweep_ended queue_settle queue_promote queue_aside task_begun_by task_end attempt_hand_over
-- Rarely: queue_wait line_take line_marked
-- include: _lib/begun _lib/queue

local _, unread = attempt(counter_read, q.fence)
if unread then return unread end
local limit, bytes, out, lines, took = tonumber(ARGV[4]), 0, {now, 0, ''}, {}, true
local by = {owner = ARGV[2], call = ARGV[3], lease_ms = tonumber(ARGV[5]), strangers = {}, looks = limit + PILE, least = limit + PILE - 8, page = math.min(limit + 1, 20), more = false}
local after = ARGV[8] == '{}' and {} or cjson.decode(ARGV[8])
if ARGV[7] ~= '[]' then
  for _, name in ipairs(cjson.decode(ARGV[7])) do by.strangers[name] = true end
end

local function sooner(at)
  if at and (out[2] == 0 or at < out[2]) then out[2] = at end
end

local function claimed(id, record, lease)
  sooner(lease.expires)
  if record.till > 0 then sooner(record.till) end
  local payload = not job_of(id) and read(q.params, id) or ''
  bytes = bytes + #payload
  out[#out + 1] = {id, record.max, record.json, record.attempts, lease.fence, lease.expires, record.due, record.till, payload}
end

local looked
if ARGV[6] ~= '[]' then
  local lost, found = {}, nil
  for _, id in ipairs(cjson.decode(ARGV[6])) do lost[id] = true end
  found, looked = task_begun_by(by.owner, lost, after[''] or '', SWEEP_MS)
  for _, begun in ipairs(found) do claimed(begun[1], begun[2], begun[3]) end
end

local spares, clock_ms = {ids = {}, count = 0}, tonumber(ARGV[10])
if ARGV[9] ~= '[]' then
  for _, id in ipairs(cjson.decode(ARGV[9])) do spares.ids[id], spares.count = true, spares.count + 1 end
end
if clock_ms > 0 and now > clock_ms + 200 then spares.process = string.match(by.call, '^[^.]*%.') end
task_sweep(math.max(40, 2 * limit), true, spares)  -- so that what has ended goes at least as fast as it comes
for _, queue in ipairs(cjson.decode(ARGV[1])) do lines[#lines + 1] = queue_line(queue, after[queue]) end
while took do
  took = false
  for _, line in ipairs(lines) do
    if #out - 3 < limit and bytes < 1048576 and not line.dry then
      local id, record, lease = queue_take(line, by)
      if id then claimed(id, record, lease) end
      line.dry, took = not id, took or id ~= nil
    end
  end
end

local reached = {[''] = looked}
for _, line in ipairs(lines) do
  sooner(line.turned_away and queue_wake(line.queue) or line.wake)
  reached[line.queue] = line.after
end
out[3] = next(reached) and cjson.encode(reached) or ''
if looked or by.more or (bytes >= 1048576 and #out - 3 < limit) then sooner(now) end
-- Not at once: whoever claims by hand asks until there is nothing more to claim now.
if swept.backlog then sooner(now + 10) end
for _, problem in ipairs(swept.strange) do out[#out + 1] = problem end
if swept.spared then
  sooner(now + 1000)
else
  sooner(sweep_next(q.leases.live))
  sooner(sweep_next_job())
end
sooner(sweep_next(q.untils))
return out
