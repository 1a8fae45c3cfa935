-- _lib/reply: what calls were answered, for as long as they may be repeated because their replies were lost.
--
--   reply:0, reply:1, reply:2  hashes  CALL -> answer, as text
--
-- The three take turns of REPEAT_MS. When a turn begins, the table of the turn after it is emptied. So an answer is kept for
-- REPEAT_MS at least, and for a minute at most.
-- A script writes its answer where a repeated call would not find it in the state any more. It asks only where it would refuse.
-- needs: _lib/clock _lib/part

local TURN_AFTER, TURN_BEFORE = 4, 5

-- Close a table at the end of a run: one write.
local function reply_close(r)
  local window, told, put = math.floor(now / REPEAT_MS), {}, nil
  for _, call in ipairs(r[CHANGED] or {}) do
    if r[call] and not told[call] then
      put = put or {int(window), ''}  -- the window's own field: by that its first write shows, also when the clock was set back
      put[#put + 1], put[#put + 2], told[call] = call, r[call], true
    end
  end
  r[CHANGED] = false
  if not put or 2 * redis.call('HSET', r[KEY], unpack(put)) < #put then return end
  redis.call('PEXPIREAT', r[KEY], int((window + 3) * REPEAT_MS))
  redis.call('UNLINK', r[TURN_AFTER])  -- of two windows ago
end

-- The replies of this shard, from KEYS of reply:0, reply:1 and reply:2: a page of this turn's table, and behind it the tables of the turn
-- after it and of the one before.
local function reply_table(first, second, third)
  local at = math.floor(now / REPEAT_MS) % 3
  if at == 0 then return {first, false, false, second, third} end
  if at == 1 then return {second, false, false, third, first} end
  return {third, false, false, first, second}
end

-- Without a run, which closes it by itself; in one, write(r, call, text) is undone with the rest.
local function reply_put(r, call, text)
  r[CHANGED] = r[CHANGED] or {}
  r[call], r[CHANGED][#r[CHANGED] + 1] = text, call
end

-- Ask for many calls at once, where each is asked for.
local function reply_gather(r, calls)
  for _, at in ipairs({KEY, TURN_AFTER, TURN_BEFORE}) do
    local said = redis.call('HMGET', r[at], unpack(calls))
    for i, call in ipairs(calls) do r[call] = r[call] or said[i] end
  end
end

-- What the call was answered before, as text; nil: nothing.
local function reply_of(r, call)
  if r[call] ~= nil then return r[call] or nil end
  for _, at in ipairs({KEY, TURN_AFTER, TURN_BEFORE}) do  -- all of them: the clock may have been set back since
    local said = redis.call('HGET', r[at], call)
    if said then return said end
  end
  return nil  -- tonumber() refuses to be given nothing
end
