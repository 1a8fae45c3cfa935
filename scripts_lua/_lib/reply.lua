-- _lib/reply: what calls were answered, for as long as they may be repeated because their replies were lost.
--
--   reply:0, reply:1, reply:2  hashes  CALL -> answer, as text
--
-- The three take turns of REPEAT_MS. When a turn begins, the table of the turn after it is emptied. So an answer is kept for
-- REPEAT_MS at least, and for a minute at most.
-- A script writes its answer where a repeated call would not find it in the state any more. It asks only where it would refuse.
-- needs: _lib/clock

-- Close a table at the end of a run: one write.
local function reply_close(r)
  local window = math.floor(now / REPEAT_MS)
  local put = {int(window), ''}  -- the window's own field: by that its first write shows, also when the clock was set back
  for call in pairs(r.changed) do
    if r.seen[call] then put[#put + 1], put[#put + 2] = call, r.seen[call] end
  end
  if #put == 2 or 2 * redis.call('HSET', r.key, unpack(put)) < #put then return end
  redis.call('PEXPIREAT', r.key, int((window + 3) * REPEAT_MS))
  redis.call('UNLINK', r.following)  -- of two windows ago
end

-- The replies of this shard: KEYS of reply:0, reply:1 and reply:2. Under `join` (_lib/run) it is closed by itself.
local function reply_table(...)
  local keys, at = {...}, math.floor(now / REPEAT_MS) % 3
  return {keys = keys, key = keys[at + 1], following = keys[(at + 1) % 3 + 1], seen = {}, changed = {}, close = reply_close}
end

-- Without a run; in one, write(r, call, text) is undone with the rest.
local function reply_put(r, call, text)
  r.seen[call], r.changed[call] = text, true
end

-- Ask for many calls at once, where each is asked for.
local function reply_gather(r, calls)
  for _, key in ipairs(r.keys) do
    local said = redis.call('HMGET', key, unpack(calls))
    for i, call in ipairs(calls) do r.seen[call] = r.seen[call] or said[i] end
  end
end

-- What the call was answered before, as text; nil: nothing.
local function reply_of(r, call)
  if r.seen[call] ~= nil then return r.seen[call] or nil end
  for _, key in ipairs(r.keys) do  -- all of them: the clock may have been set back since
    local said = redis.call('HGET', key, call)
    if said then return said end
  end
  return nil  -- tonumber() refuses to be given nothing
end
