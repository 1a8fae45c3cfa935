-- _lib/fence: fences are minted by one counter a shard.
--
--   counter  string  the last fence
--
-- fence = max(last + 1, TIME in microseconds): the clock keeps it growing when the counter is lost to FLUSHALL, eviction
-- or failover, the counter when the clock stands still or steps back.
-- needs: _lib/clock

local counter_key, last, minted

-- Read the counter before anything is changed: where it can't be read, nothing is.
local function counter_read(key)
  if last then return end
  last = tonumber(string.match(redis.call('GET', key) or '0', '^(%d+) ?%d*$'))
  if not last or last >= 9007199254740992 then
    last = nil
    unreadable(key)
  end
  counter_key = key
end

local function mint(key)
  counter_read(key)
  minted = (minted or math.max(last, time[1] * 1000000 + time[2] - 1)) + 1
  return minted
end

-- At the end of a run: one write, whatever it has minted.
local function counter_write()
  if minted then redis.call('SET', counter_key, int(minted)) end
end
