-- _lib/claim: the life of a claim: claimed -> done, failed or released; or, once it ran out, taken over or swept.
--
-- KEYS[1]  claim          hash    MEMBER -> its lease, see _lib/lease1. A MEMBER is QUEUE \255 KEY: UTF-8 never holds byte 255.
-- KEYS[2]  claim:live     zset    MEMBER by expiry, while claimed and not yet found to have run out
-- KEYS[3]  claim:owned    zset    OWNER \255 MEMBER, of the same
-- KEYS[4]  claim:order    zset    MEMBER, of the same, in lexical order
-- KEYS[5]  claim:expired  zset    MEMBER by expiry, once found to have run out unfinished; never in `live` as well
-- KEYS[6]  claim:state    hash    MEMBER -> "STATE ATTEMPT UNTIL RENEWED REFUSED SINCE PREVIOUS"
-- KEYS[7]  claim:result   hash    MEMBER -> JSON that no script reads: the result while done and held, else the last error
-- KEYS[8]  claim:ended    zset    MEMBER by when to forget it, once it has ended
-- KEYS[9]  claim:stats    hash    what happened -> how often; horizon: until when the keys above live
-- KEYS[10] fence          string  the last fence of this shard
--
-- STATE: claimed, done, failed, released or swept. ATTEMPT: which it is; once ended, how many of them count. UNTIL: for how long
-- an end is remembered by `acquire`. RENEWED: id of the last call that renewed it, REFUSED: of the last calls it turned away
-- ("-": none); by them a repeated call is counted once. SINCE: when that state began. PREVIOUS: whose claim it took over.
-- needs: _lib/lease1 _lib/results

local t = {leases = KEYS[1], live = KEYS[2], owned = KEYS[3]}
local unindexed = {leases = KEYS[1], owned = KEYS[3]}  -- the same, for a lease that leaves the index by expiry
local c = {order = KEYS[4], expired = KEYS[5], states = KEYS[6], results = KEYS[7], ended = KEYS[8], stats = KEYS[9]}
local counter = KEYS[10]

local FORGET_MS = 7 * 86400 * 1000  -- for how long attempts are counted after a failure, and what ran out is remembered
local counted, furthest = {}, 0

local function claim_count(what, by)
  counted[what] = (counted[what] or 0) + by
end

local function claim_read(member)
  local lease = lease_read(t, member)
  if not lease then return nil end
  -- A store that evicts may have lost the state alone: then it is as good as claimed.
  local value = redis.call('HGET', c.states, member) or 'claimed 1 0 - - 0 '
  local state, attempt, till, renewed, refused, since, previous =
    string.match(value, '^(%a+) (%d+) (%d+) (%S+) (%S+) (%d+) (.*)$')
  if not previous then unreadable(c.states, member) end
  till, since = tonumber(till), tonumber(since)
  if since > now + SET_BACK_MS then
    -- It ended before the clock was set back: what it is kept for begins now.
    till, since = now + math.max(till - since, 0), now
    if redis.call('ZSCORE', c.ended, member) then redis.call('ZADD', c.ended, int(math.max(till, now + TOMBSTONE_MS)), member) end
    redis.call('HSET', c.states, member,
      state .. ' ' .. attempt .. ' ' .. int(till) .. ' ' .. renewed .. ' ' .. refused .. ' ' .. int(since) .. ' ' .. previous)
  end
  return {lease = lease, state = state, attempt = tonumber(attempt), till = till, renewed = renewed,
    refused = refused, since = since, previous = previous}
end

local function claim_write(member, claim)
  redis.call('HSET', c.states, member, claim.state .. ' ' .. int(claim.attempt) .. ' ' .. int(claim.till) .. ' ' ..
    claim.renewed .. ' ' .. claim.refused .. ' ' .. int(claim.since) .. ' ' .. claim.previous)
end

-- What a caller is told of it.
local function claim_row(member, claim)
  local at = string.find(member, '\255', 1, true)
  return {string.sub(member, 1, at - 1), string.sub(member, at + 1), claim.lease.owner, claim.lease.fence, claim.lease.expires,
    claim.attempt, claim.previous, redis.call('HGET', c.results, member) or ''}
end

-- Give it to a new owner; `old` is what claim_read found: nothing, ended, or run out. Returns the claim.
local function claim_grant(member, old, owner, token, lease_ms)
  local fence = mint(counter)
  local claim = {state = 'claimed', attempt = 1, till = 0, renewed = '-', refused = '-', since = now, previous = ''}
  if old then
    local taken_over = old.state == 'claimed'
    if taken_over or old.till > now then
      claim.attempt = old.attempt + 1
    else
      redis.call('HDEL', c.results, member)
    end
    if taken_over then
      claim.previous = old.lease.owner
      claim_count('expired', 1)
    end
    claim.refused = old.refused
    redis.call('ZREM', c.ended, member)
    redis.call('ZREM', c.expired, member)
  end
  claim_count(claim.previous == '' and 'acquired' or 'took_over', 1)
  claim.lease = lease_grant(t, fence, member, old and old.lease, owner, token, lease_ms)
  claim_write(member, claim)
  redis.call('ZADD', c.order, 0, member)
  furthest = math.max(furthest, claim.lease.expires + FORGET_MS)
  return claim
end

-- Why the claim of that owner and fence is not the newest and unfinished; nil: it is.
local function claim_refusal(claim, owner, fence)
  if not claim then return RESULT.UNKNOWN end
  if claim.lease.fence ~= fence then return RESULT.STALE end
  if claim.lease.owner ~= owner then return RESULT.ANOTHERS end
  if claim.state == 'swept' then return RESULT.EXPIRED end
  return claim.state ~= 'claimed' and RESULT.FINISHED or nil
end

-- End what claim_read found claimed. `attempts`: how many count when it is acquired next, within `keep_ms`.
local function claim_end(member, claim, state, attempts, keep_ms, call)
  lease_free(unindexed, member, claim.lease, call)
  redis.call('ZREM', t.live, member)
  redis.call('ZREM', c.order, member)
  redis.call('ZREM', c.expired, member)
  claim.state, claim.attempt, claim.till, claim.since, claim.previous = state, attempts, now + keep_ms, now, ''
  claim_write(member, claim)
  -- Long enough for a call to be repeated that has ended it, whatever it is kept for.
  local forget_at = now + math.max(keep_ms, TOMBSTONE_MS)
  redis.call('ZADD', c.ended, int(forget_at), member)
  furthest = math.max(furthest, forget_at + TOMBSTONE_MS)
  claim_count(state == 'swept' and 'expired' or state == 'done' and 'completed' or state, 1)
end

-- Given back without having been worked on: its attempt does not count.
local function claim_release(member, claim, call)
  claim_end(member, claim, 'released', claim.attempt - 1, claim.attempt > 1 and FORGET_MS or 0, call)
end

-- It was found to have run out: from the indexes of what is live to that of the expired. `lease` nil: it was evicted.
local function claim_ran_out(member, lease)
  redis.call('ZREM', t.live, member)
  redis.call('ZREM', c.order, member)
  if lease then
    redis.call('ZREM', t.owned, lease.owner .. '\255' .. member)
    redis.call('ZADD', c.expired, int(lease.expires), member)
  end
end

-- One that can't be read may be anybody's: look again in a while, so that it stands in nobody's way.
local function claim_aside(member)
  redis.call('ZREM', c.expired, member)
  redis.call('ZADD', t.live, int(now + ASIDE_MS), member)
end

-- The way back, for what is live: it was found to have run out, and then the server's clock was set back. Nothing else revives.
local function claim_unexpire(member, lease)
  if redis.call('ZREM', c.expired, member) == 0 then return end
  redis.call('ZADD', t.live, int(lease.expires), member)
  redis.call('ZADD', t.owned, 0, lease.owner .. '\255' .. member)
  redis.call('ZADD', c.order, 0, member)
end

-- `claim_unexpire` up to `most` that are live again. Whether there may be more.
local function claim_revive(most)
  local members = redis.call('ZRANGEBYSCORE', c.expired, '(' .. int(now), '(+inf', 'LIMIT', 0, most)
  for _, member in ipairs(members) do
    local lease, problem = attempt(lease_read, t, member)
    if problem then claim_aside(member)
    elseif lease then claim_unexpire(member, lease)
    else redis.call('ZREM', c.expired, member) end
  end
  return #members == most
end

-- Move up to `most` that ran out unfinished to the index of the expired, and back what is live again. Whether there may be more.
-- So what is live can be counted and listed without a look at what is not.
local function claim_settle(most)
  lease_settle(t, most)
  local members = redis.call('ZRANGEBYSCORE', t.live, '-inf', int(now), 'LIMIT', 0, most)
  for _, member in ipairs(members) do
    local lease, problem = attempt(lease_read, t, member)
    if problem then claim_aside(member) else claim_ran_out(member, lease) end
  end
  return claim_revive(most) or #members == most
end

local function claim_drop(member)
  local lease = attempt(lease_read, t, member)
  if lease then lease_drop(t, member, lease) else redis.call('HDEL', t.leases, member) end
  redis.call('HDEL', c.states, member)
  redis.call('HDEL', c.results, member)
  redis.call('ZREM', c.ended, member)
  redis.call('ZREM', c.expired, member)
end

-- Forget up to `most` of those that ended, and of those that ran out and that nobody missed.
local function claim_forget(most)
  -- The empty member stands last. What has ended is read, which is enough to set right when it is forgotten.
  for _, member in ipairs(redis.call('ZRANGE', c.ended, -2, -2)) do attempt(claim_read, member) end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', c.ended, '-inf', int(now), 'LIMIT', 0, most)) do
    claim_drop(member)
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', c.expired, '-inf', int(now - FORGET_MS), 'LIMIT', 0, most)) do
    local lease = attempt(lease_read, t, member)
    if lease and lease.live then  -- of a store in which what was renewed was left here
      claim_unexpire(member, lease)
    else
      claim_drop(member)
      claim_count('expired', 1)
    end
  end
end

-- At the end of a run that changed anything: enter what was counted, and let the keys outlive what is in them. The empty
-- members keep a key from being emptied, and with it from losing its TTL, so that all but one run an hour touch no TTL.
local function finish()
  counter_write()
  for what, by in pairs(counted) do
    if by ~= 0 then tally(c.stats, what, by) end
  end
  if furthest <= (tonumber(redis.call('HGET', c.stats, 'horizon') or 0) or now + redis.call('PTTL', t.leases)) then return end
  local horizon = int(furthest + 3600000)
  redis.call('HSET', c.stats, 'horizon', horizon)
  for _, hash in ipairs({t.leases, c.states, c.results}) do redis.call('HSET', hash, '', '') end
  for _, by_time in ipairs({t.live, c.expired, c.ended}) do redis.call('ZADD', by_time, '+inf', '') end
  for _, lexical in ipairs({t.owned, c.order}) do redis.call('ZADD', lexical, 0, '\255\255') end
  for _, key in ipairs({t.leases, c.states, c.results, t.live, c.expired, c.ended, t.owned, c.order}) do
    redis.call('PEXPIREAT', key, horizon)
  end
end
