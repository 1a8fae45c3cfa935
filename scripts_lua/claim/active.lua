-- claim/active: how many claims of a queue are live.
--
-- KEYS[1..11] of _lib/claim
-- ARGV[1] queue  str
-- ARGV[2] limit  int  how many that ran out may be moved out of the way; bounds the script's time
--
-- Returns  {count, more}  more is 1 when there are others to be moved, and the count is not yet true: ask again
--
-- O(log n): what ran out is moved once, and then counted by nobody.
-- include: _lib/claim

local queue, limit = ARGV[1], tonumber(ARGV[2])
claim_mend(limit)
local more = claim_settle(limit)
scatter(c.order)
return {redis.call('ZLEXCOUNT', KEYS[4], '[' .. queue .. '\255', '(' .. queue .. '\255\255'), more and 1 or 0}
