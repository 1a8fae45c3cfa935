-- task/renew_call: renew whatever each call has begun, while the reply to it is on its way.
--
-- KEYS[1..27] of _lib/task
-- ARGV[1]  owner         str
-- ARGV[2]  call          id      that claimed or fired
-- ARGV[3]  lease_ms      int     for tasks that do not say theirs
-- Batch: ARGV[1..3] repeat, one group a call, at most 8 a run.
--
-- Returns  expires_at_ms  of what it has begun, if anything: never refused, for it may be executed only after this
--
-- The reply may lie unread in the socket of a program whose event loop is blocked; the keeper, who asks this, is a thread of its own.
-- Under OOM: runs.
-- include: _lib/begun

local wanted = {}  -- owner -> call -> lease_ms
local out = each(3, function(i)
  local owner, call, lease_ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  wanted[owner] = wanted[owner] or {}
  wanted[owner][call] = lease_ms
  return now + lease_ms
end)
for owner, calls in pairs(wanted) do
  for _, begun in ipairs((task_begun_by(owner, calls, '', 1000))) do
    local id, record, lease, t, key = unpack(begun)
    local said = attempt(policies, id, record)
    lease_renew(t, key, lease, said and said.lease_ms or calls[lease.calls])
    if t == q.locks then lease_outlive(t, now + KEPT_MS) end
  end
end
return out
