-- _lib/waiting: who waits for a lock, first come, first served.
--
-- Messages are hints. A waiter that is told of its grant makes its own call again, and enters on the reply to that.
--
--   queue    zset  KEY \255 SEQ TOKEN, all of score 0: SEQ is a fence, 16 digits, so the order is that of arrival
--   waiters  hash  TOKEN -> "SEQ TTL_MS CHANNEL OWNER"
-- needs: _lib/lease1 _lib/messages

-- A waiter that was handed the lock must ask for it within this time, so one that froze costs its successors no whole ttl.
local GRANT_MS = 2000

-- One that can't be read is no waiter: nobody could be told. It asks again, as after a message that was lost.
local function waiter_of(w, token)
  local value = redis.call('HGET', w.waiters, token)
  local seq, ttl, channel, owner = string.match(value or '', '^(%d+) (%d+) (%S+) (.+)$')
  if not owner then return nil end
  return {seq = seq, ttl = tonumber(ttl), channel = channel, owner = owner}
end

local function waiter_leave(w, key, token)
  local waiter = waiter_of(w, token)
  redis.call('HDEL', w.waiters, token)
  if not waiter then return end
  redis.call('ZREM', w.queue, key .. '\255' .. waiter.seq .. token)
end

-- Returns whether it had no place in the queue.
local function waiter_join(w, counter, key, token, ttl, channel, owner)
  if redis.call('HEXISTS', w.waiters, token) == 1 then return false end
  local seq = int(mint(counter))
  redis.call('HSET', w.waiters, token, seq .. ' ' .. int(ttl) .. ' ' .. channel .. ' ' .. owner)
  redis.call('ZADD', w.queue, 0, key .. '\255' .. seq .. token)
  return true
end

local function waiters_of(w, key, most)
  return redis.call('ZRANGEBYLEX', w.queue, '[' .. key .. '\255', '(' .. key .. '\255\255', 'LIMIT', 0, most)
end

-- A process that froze or died after it was told says nothing more: let the next one ask when GRANT_MS is over.
local function alert_next(w, key, channel, lease)
  for _, member in ipairs(waiters_of(w, key, 4)) do
    local token = string.sub(member, #key + 18)
    local waiter = waiter_of(w, token)
    if waiter and waiter.channel ~= channel then
      redis.call('PUBLISH', waiter.channel, message_next(token, lease.expires - now))
      return
    end
  end
end

-- Hand the free `key` to the first waiter whose process still listens; nobody, or `mine` is first: nil.
-- PUBLISH counts who hears it: a process that died took its subscription with it, and is passed over in this same call.
-- It counts only those who listen at this server. On a Cluster, and through replication, the message reaches others all the
-- same: they ask, and find the lock free, held by the next, or their place lost; then they queue again.
local function hand_off(t, w, counter, key, old, mine)
  counter_read(counter)  -- or nobody leaves the queue
  for _ = 1, 100 do
    local head = waiters_of(w, key, 1)[1]
    if not head then return nil end
    local token = string.sub(head, #key + 18)
    if token == mine then return nil end
    local waiter = waiter_of(w, token)
    redis.call('HDEL', w.waiters, token)
    redis.call('ZREM', w.queue, head)
    if waiter then
      local lease = lease_grant(t, mint(counter), key, old, waiter.owner, token, math.min(waiter.ttl, GRANT_MS))
      if redis.call('PUBLISH', waiter.channel, message_granted(token)) > 0 then
        alert_next(w, key, waiter.channel, lease)
        return lease
      end
      lease_free(t, key, lease, '-')
      old = lease
    end
  end
  return nil
end
