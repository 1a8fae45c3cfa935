-- claim/cleanup: end up to `limit` claims that ran out unfinished; whoever acquires one next takes over from nobody.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1]  call        id      of this call; the same again is the same call, repeated
-- ARGV[2]  limit       int     bounds the script's time; ask again while more is 1
--
-- Returns  {swept, more, *unreadable}  more is 1 when there may be others; unreadable: see _lib/clock
-- Under OOM: runs.
-- include: _lib/claim

local call, limit = ARGV[1], tonumber(ARGV[2])
local said = reply_of(replies, call)
if said then
  local swept, more = string.match(said, '^(%d+) (%d)$')
  return {tonumber(swept), tonumber(more)}
end

claim_mend(limit)
local members, out = claim_gather(due(t.live, now, limit)), {0, 0}
for _, member in ipairs(members) do
  local lease, problem = attempt(lease_read, t, member)
  if problem then
    out[#out + 1] = problem
    enter(t.live, member, now + ASIDE_MS)  -- it may be anybody's: look again in a while, so that it stands in nobody's way
  elseif lease then
    claim_end(member, lease, 'swept', 0, 0, '')
    out[1] = out[1] + 1
  else
    leave(t.live, member)
  end
end
claim_forget(limit)
out[2] = #members == limit and 1 or 0
write(replies, call, out[1] .. ' ' .. out[2])
return out
