-- _lib/waiting: who waits for a lock, first come, first served.
--
-- Messages are hints. A waiter that is told of its grant makes its own call again, and enters on the reply to that.
--
--   queue    zset  KEY \255 SEQ TOKEN, all of score 0: SEQ is a fence, 16 digits, so the order is that of arrival
--   waiters  hash  TOKEN -> "SEQ TTL_MS CHANNEL OWNER"
-- needs: _lib/clock _lib/fence _lib/messages

-- A waiter that was handed the lock must ask for it within this time, so one that froze costs its successors no whole ttl.
local GRANT_MS = 2000

-- One that can't be read is no waiter: nobody could be told. It asks again, as after a message that was lost.
local function waiter_parse(value)
  local seq, ttl, channel, owner = string.match(value or '', '^(%d+) (%d+) (%S+) (.+)$')
  if not owner then return nil end
  return {seq = seq, ttl = tonumber(ttl), channel = channel, owner = owner}
end

local function waiter_of(w, token)
  return waiter_parse(redis.call('HGET', w.waiters, token))
end

local function waiter_leave(w, key, token)
  local waiter = waiter_of(w, token)
  redis.call('HDEL', w.waiters, token)
  if waiter then redis.call('ZREM', w.queue, key .. '\255' .. waiter.seq .. token) end
end

-- Returns whether it had no place in the queue.
local function waiter_join(w, counter, key, token, ttl, channel, owner)
  if redis.call('HEXISTS', w.waiters, token) == 1 then return false end
  local seq = int(mint(counter))
  redis.call('HSET', w.waiters, token, seq .. ' ' .. int(ttl) .. ' ' .. channel .. ' ' .. owner)
  redis.call('ZADD', w.queue, 0, key .. '\255' .. seq .. token)
  return true
end

-- The tokens of the first who wait for a key, and their members in the queue.
local function waiters_of(w, key, most)
  local members, tokens = redis.call('ZRANGEBYLEX', w.queue, '[' .. key .. '\255', '(' .. key .. '\255\255', 'LIMIT', 0, most), {}
  for i, member in ipairs(members) do tokens[i] = string.sub(member, #key + 18) end
  return tokens, members
end

-- The lease of the first waiter for a free `key` whose process still listens: it has left the queue, and is told. nil: nobody waits, or
-- `mine` is first.
-- PUBLISH counts who hears it: a process that died took its subscription with it, and is passed over in this same call.
-- It counts only those who listen at this server. On a Cluster, and through replication, the message reaches others all the
-- same: they ask, and find the lock free, held by the next, or their place lost; then they queue again.
local function hand_off(w, counter, key, mine)
  counter_read(counter)  -- or nobody leaves the queue
  for _ = 1, 100 do
    local tokens, members = waiters_of(w, key, 1)
    local token = tokens[1]
    if not token or token == mine then return nil end
    local waiter = waiter_of(w, token)
    redis.call('HDEL', w.waiters, token)
    redis.call('ZREM', w.queue, members[1])
    if waiter and redis.call('PUBLISH', waiter.channel, message_granted(token)) > 0 then
      local ttl = math.min(waiter.ttl, GRANT_MS)
      -- A process that froze or died after it was told says nothing more: let the next one ask when that time is over.
      for _, following in ipairs((waiters_of(w, key, 4))) do
        local other = waiter_of(w, following)
        if other and other.channel ~= waiter.channel then
          redis.call('PUBLISH', other.channel, message_next(following, ttl))
          break
        end
      end
      return {fence = mint(counter), ttl = ttl, calls = token, note = '-', owner = waiter.owner}
    end
  end
  return nil
end
