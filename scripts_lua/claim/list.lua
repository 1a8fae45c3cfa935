-- claim/list: a page of the live claims of a queue, in order of their keys.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1] queue  str
-- ARGV[2] after  str  the key with which the page before ended; empty: the first page
-- ARGV[3] limit  int  how many to look at
--
-- Returns  {cursor, *claims}  each as claim/get has it; an empty cursor: this was the last page
--
-- O(log n + returned): what ran out is first moved out of the way, once.
-- include: _lib/claim

local queue, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
claim_mend(limit)
claim_settle(limit)
local members = range(c.order, (after == '' and '[' or '(') .. queue .. '\255' .. after, '(' .. queue .. '\255\255', limit)
local out = {#members == limit and string.sub(members[#members], #queue + 2) or ''}
for _, member in ipairs(claim_gather(members)) do
  local row, problem, lease = attempt(claim_look, member)
  if problem then out[#out + 1] = problem end
  if lease and lease.live then out[#out + 1] = row end
end
return out
