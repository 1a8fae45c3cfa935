-- claim/list: a page of the live claims of a queue, in order of their keys.
--
-- KEYS[1..10] of _lib/claim
-- ARGV[1] queue  str
-- ARGV[2] after  str  the key with which the page before ended; empty: the first page
-- ARGV[3] limit  int  how many to look at
--
-- Returns  {cursor, *claims}  each as claim/get has it; an empty cursor: this was the last page
--
-- O(log n + returned): what ran out is first moved out of the way, once.
-- include: _lib/lease1 _lib/claim

local queue, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
claim_settle(limit)
local low = (after == '' and '[' or '(') .. queue .. '\255' .. after
local page = redis.call('ZRANGEBYLEX', c.order, low, '(' .. queue .. '\255\255', 'LIMIT', 0, limit)
local out = {#page == limit and string.sub(page[#page], #queue + 2) or ''}
for _, member in ipairs(page) do
  local claim, problem = attempt(claim_read, member)
  if problem then out[#out + 1] = problem end
  if claim and claim.state == 'claimed' and claim.lease.live then out[#out + 1] = claim_row(member, claim) end
end
return out
