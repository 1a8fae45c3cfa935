-- _lib/claim: the life of a claim: claimed -> done, failed or released; or, once it ran out, taken over or swept.
--
-- KEYS[1]  claim        hash    MEMBER -> lease, see _lib/lease, while it is claimed; NOTE: which attempt it is. A MEMBER is QUEUE \255 KEY
-- KEYS[2]  claim:live   zset    MEMBER by expiry, of the same; what is not above `now` has run out
-- KEYS[3]  claim:owned  zset    OWNER \255 MEMBER, of the same
-- KEYS[4]  claim:order  zset    MEMBER, in lexical order, of the same, less those found to have run out
-- KEYS[5]  claim:past   hash    MEMBER -> "STATE ATTEMPTS UNTIL SINCE FENCE OWNER \255 JSON": how the attempt before ended
-- KEYS[6]  claim:ended  zset    MEMBER by when to forget its past, while nobody claims it
-- KEYS[7]  claim:stats  hash    what happened -> how often; horizon: until when the keys above live; settled: "LOW HIGH", see claim_settle
-- KEYS[8]  fence        string  the last fence of this shard
-- KEYS[9]  reply:0      hash    see _lib/reply
-- KEYS[10] reply:1      hash
-- KEYS[11] reply:2      hash
--
-- STATE: done, failed, released, swept; or lost: it ran out, and was taken over. ATTEMPTS: how many count, until UNTIL; what is done
-- is held until then. SINCE: when it ended. FENCE, OWNER: of the claim that ended. JSON, which no script reads: its result while
-- it is held, else how it last failed.
-- needs: _lib/results _lib/reply _lib/leases

local t = lease_table(KEYS[1], KEYS[2], KEYS[3])
local c = {order = index(KEYS[4]), past = page(KEYS[5]), ended = index(KEYS[6]), stats = count(KEYS[7]), marks = page(KEYS[7])}
local replies, counter = join(reply_table(KEYS[9], KEYS[10], KEYS[11]), reply_close), KEYS[8]

local FORGET_MS = 7 * 86400 * 1000  -- for how long attempts are counted after a failure, and what ran out is remembered

-- Let the keys outlive `until_ms`. The empty members keep a key from being emptied, and with it from losing its TTL.
local function claim_outlive(until_ms)
  c.until_ms = math.max(c.until_ms or 0, until_ms)
end

local function claim_close()
  if not c.until_ms or c.until_ms <= (tonumber(read(c.marks, 'horizon') or 0) or now + redis.call('PTTL', KEYS[1])) then return end
  local horizon = int(c.until_ms + 3600000)  -- so that all but one run an hour touch no TTL
  write(c.marks, 'horizon', horizon)
  for _, hash in ipairs({t.records, c.past}) do redis.call('HSET', hash[KEY], '', '') end
  for _, by_time in ipairs({t.live, c.ended}) do redis.call('ZADD', by_time[KEY], '+inf', '') end
  for _, lexical in ipairs({t.owned, c.order}) do redis.call('ZADD', lexical[KEY], 0, '\255\255') end
  for _, part in ipairs({t.records, c.past, t.live, c.ended, t.owned, c.order}) do redis.call('PEXPIREAT', part[KEY], horizon) end
end
join(c, claim_close)

local function claim_gather(members)
  lease_gather(t, members)
  gather(c.past, members)
  return members
end

-- The members that the groups of ARGV begin with, their leases gathered.
local function claim_groups(width)
  local members = {}
  for i = 1, #ARGV, width do members[#members + 1] = ARGV[i] .. '\255' .. ARGV[i + 1] end
  lease_gather(t, members)
  return members
end

local function past_write(member, past)
  write(c.past, member, past.state .. ' ' .. int(past.attempts) .. ' ' .. int(past.till) .. ' ' .. int(past.since) .. ' '
    .. int(past.fence) .. ' ' .. past.owner .. '\255' .. past.json)
end

local function past_read(member)
  local value = read(c.past, member)
  if not value then return nil end
  local state, attempts, till, since, fence, owner, json =
    string.match(value, '^(%a+) (%d+) (%d+) (%d+) (%d+) ([^\255]+)\255(.*)$')
  if not json then unreadable(KEYS[5], member) end
  local past = {state = state, attempts = tonumber(attempts), till = tonumber(till), since = tonumber(since), fence = tonumber(fence),
    owner = owner, json = json}
  if past.since > now + SET_BACK_MS then
    -- It ended before the clock was set back: what it is kept for begins now.
    past.till, past.since, past.mended = now + math.max(past.till - past.since, 0), now, true
    past_write(member, past)
    if read(c.ended, member) then enter(c.ended, member, math.max(past.till, now + REPEAT_MS)) end
  end
  return past
end

-- What a caller is told of a claim.
local function claim_row(member, lease, past)
  local at = string.find(member, '\255', 1, true)
  return {string.sub(member, 1, at - 1), string.sub(member, at + 1), lease.owner, lease.fence, lease.expires, tonumber(lease.note),
    past and past.state == 'lost' and past.owner or '', past and past.json or ''}
end

-- The row of a claim that stands, and its lease.
local function claim_look(member)
  local lease = lease_read(t, member)
  if lease then return claim_row(member, lease, past_read(member)), lease end
end

-- LOW and HIGH, see claim_settle. While the clock is set back, what is granted runs out below what was settled: LOW goes down with it.
local function claim_settled()
  local low, high = string.match(read(c.marks, 'settled') or '', '^(%d+) (%d+)$')
  low, high = tonumber(low or 0), tonumber(high or 0)
  if low > now then
    low = now
    write(c.marks, 'settled', int(low) .. ' ' .. int(high))
  end
  return low, high
end

-- Give it to a new owner; `old`: a lease that ran out, or nil. Returns the lease and the past.
local function claim_grant(member, old, past, owner, call, ttl)
  local fence, attempts = mint(counter), 0
  claim_settled()
  if old then
    attempts = tonumber(old.note)
    past = {state = 'lost', attempts = attempts, till = now + FORGET_MS, since = now, fence = old.fence, owner = old.owner,
      json = past and past.json or ''}
    past_write(member, past)
    lease_drop(t, member, old)
    tally(c.stats, 'expired')
  elseif past then
    leave(c.ended, member)
    if past.till > now then
      attempts = past.attempts
    else
      erase(c.past, member)
      past = nil
    end
  end
  tally(c.stats, old and 'took_over' or 'acquired')
  local lease = lease_grant(t, member, nil, {fence = fence, ttl = ttl, calls = call, note = int(attempts + 1), owner = owner})
  enter(c.order, member, 0)
  claim_outlive(lease.expires + FORGET_MS)
  return lease, past
end

-- Why the claim of that owner and fence is not the newest and unfinished; nil: it is.
local function claim_refusal(member, lease, owner, fence)
  local last = lease or past_read(member)
  if not last then return RESULT.UNKNOWN end
  if last.fence ~= fence then return RESULT.STALE end
  if last.owner ~= owner then return RESULT.ANOTHERS end
  if lease then return nil end
  return last.state == 'swept' and RESULT.EXPIRED or RESULT.FINISHED
end

-- End a claim. `attempts`: how many count when it is acquired next, within `keep_ms`.
local function claim_end(member, lease, state, attempts, keep_ms, json)
  lease_drop(t, member, lease)
  leave(c.order, member)
  past_write(member, {state = state, attempts = attempts, till = now + keep_ms, since = now, fence = lease.fence, owner = lease.owner,
    json = json})
  local forget_at = now + math.max(keep_ms, REPEAT_MS)  -- a refusal says how it ended, for a while
  enter(c.ended, member, forget_at)
  claim_outlive(forget_at)
  tally(c.stats, state == 'done' and 'completed' or state == 'swept' and 'expired' or state)
end

-- What a call is told that is refused: if it is repeated, and had ended or renewed the claim, that it did.
local function claim_said(call, refusal)
  return tonumber(reply_of(replies, call) or refusal)
end

-- End the claim of that owner and fence, or say why not.
local function claim_conclude(member, owner, fence, call, state, attempts, keep_ms, json)
  local lease = lease_read(t, member)
  local refusal = claim_refusal(member, lease, owner, tonumber(fence))
  if refusal then return claim_said(call, refusal) end
  claim_end(member, lease, state, attempts or tonumber(lease.note), keep_ms, json)
  write(replies, call, int(RESULT.DONE))
  return RESULT.DONE
end

-- Given back without having been worked on: its attempt does not count.
local function claim_release(member, lease)
  local attempts, past = tonumber(lease.note) - 1, past_read(member)
  claim_end(member, lease, 'released', attempts, attempts > 0 and FORGET_MS or 0, past and past.json or '')
end

-- Of up to `most` rows of `live` the members, and all others of the last one's millisecond; which that is, if there may be more rows.
local function claim_page(rows, most)
  local members = {}
  for i = 1, #rows, 2 do members[#members + 1] = rows[i] end
  if #members < most then return members end
  local last = tonumber(rows[#rows])
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', t.live[KEY], int(last), int(last))) do members[#members + 1] = member end
  return members, last
end

-- Take what has run out from the order, once, so that what is live can be counted and listed without a look at it. Whether there
-- may be more. None that expires up to LOW is in the order, and all that expire after HIGH are: HIGH is above LOW after the clock
-- was set back, until what is live again has been entered there.
local function claim_settle(most)
  scatter(t.live)
  local low, high = claim_settled()
  local back, ran_out, more_back, more = {}
  if high > now then
    back, more_back =
      claim_page(redis.call('ZREVRANGEBYSCORE', t.live[KEY], int(high), '(' .. int(now), 'WITHSCORES', 'LIMIT', 0, most), most)
    for _, member in ipairs(back) do enter(c.order, member, 0) end
    high = more_back and more_back - 1 or now
  end
  ran_out, more = claim_page(redis.call('ZRANGEBYSCORE', t.live[KEY], '(' .. int(low), int(now), 'WITHSCORES', 'LIMIT', 0, most), most)
  for _, member in ipairs(ran_out) do leave(c.order, member) end
  if #back + #ran_out > 0 then
    low = more or now
    write(c.marks, 'settled', int(low) .. ' ' .. int(math.max(low, high)))
  end
  return more_back or more
end

-- Of what expires last, and of what is forgotten last, whatever a clock that was set back since has put further ahead than it can be is
-- set right when it is read.
local function claim_mend(most)
  for part, look in pairs({[t.live] = function(member) return lease_read(t, member) end, [c.ended] = past_read}) do
    for at = 1, most do  -- the empty member stands last
      local last = redis.call('ZRANGE', part[KEY], -at - 1, -at - 1)[1]
      local found = last and attempt(look, last)
      if not last or found and not found.mended then break end
    end
  end
end

-- Forget up to `most` of those that ended, and of those that ran out and that nobody missed.
local function claim_forget(most)
  for _, member in ipairs(due(c.ended, now, most)) do
    erase(c.past, member)
    leave(c.ended, member)
  end
  for _, member in ipairs(due(t.live, now - FORGET_MS, most)) do
    local lease = attempt(lease_read, t, member)
    erase(t.records, member)
    erase(c.past, member)
    leave(t.live, member)
    leave(c.order, member)
    if lease then leave(t.owned, lease.owner .. '\255' .. member) end
    tally(c.stats, 'expired')
  end
end
