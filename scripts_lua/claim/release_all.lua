-- claim/release_all: give back what an owner has claimed, up to `limit` at a time.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1] owner  str
-- ARGV[2] after  str  the cursor that the page before returned; empty: the first page
-- ARGV[3] call   id   of this call; the same again is the same call, repeated
-- ARGV[4] limit  int  bounds the script's time
--
-- Returns  {released, cursor, *unreadable}  live ones only are counted; an empty cursor: this was the last page; unreadable: see
--          _lib/clock
--
-- The owner's own index makes this O(owned): nothing is scanned, and no other owner's claim is looked at.
-- Under OOM: runs.
-- include: _lib/claim

local owner, call, limit = ARGV[1], ARGV[3], tonumber(ARGV[4])
local said = reply_of(replies, call)
if said then
  local released, cursor = string.match(said, '^(%d+) (.*)$')
  return {tonumber(released), cursor}
end

local members = claim_gather(lease_owned(t, owner, limit, ARGV[2]))
local out = {0, #members == limit and members[limit] or ''}
for _, member in ipairs(members) do
  local lease, problem = attempt(lease_read, t, member)
  if problem then out[#out + 1] = problem end
  if lease and lease.owner == owner then
    if lease.live then
      claim_release(member, lease)
      out[1] = out[1] + 1
    end
  elseif not problem then
    leave(t.owned, owner .. '\255' .. member)
  end
end
write(replies, call, out[1] .. ' ' .. out[2])
return out
