-- _lib/fenced: what was last written under a name, and by which fence.
--
--   string  "FENCE VALUE"; PX.  FENCE: the newest that wrote or was checked. VALUE empty: none was written, or it was deleted.
-- needs: _lib/clock

local REMEMBER_MS = 30 * 86400000

local function fenced_read(key)
  local text = redis.call('GET', key)
  if not text then return nil, '' end
  local fence, value = string.match(text, '^(%d+) (.*)$')
  if not fence then unreadable(key) end
  return tonumber(fence), value
end

-- Whether `fence` may write where `newest` was the last to. Of a name of which nothing is known a newer fence may have been
-- forgotten: that was more than REMEMBER_MS ago, and a fence is the time it was minted at, so one that is younger is newer.
local function fenced_admits(newest, fence)
  if newest then return fence >= newest end
  return fence >= (now - REMEMBER_MS) * 1000
end

local function fenced_write(key, fence, value)
  redis.call('SET', key, int(fence) .. ' ' .. value, 'PX', REMEMBER_MS)
end
