-- _lib/version: the versions of the programs that declare jobs: which of two is the newer, which live, and which have gone.
--
--   version  string  "SINCE BUSY", and of each version a line "ID FIRST UNTIL AGAIN STATE AFTER NUMBER"
--
-- A version is all that a program's code declares; ID is a digest of that. FIRST: when it was first declared here. UNTIL: as far as is known,
-- an instance that declares it lives so long. AGAIN: its instances declare their jobs again when this has changed. STATE: lives; gone: UNTIL
-- is over; walking: somebody looks for jobs that only it declared; over: that was done. AFTER: the versions that have taken over jobs of it, or kept them from it, with commas between; -: none.
-- NUMBER: as `Beat(version=)` says it; -: it does not. SINCE: when the first line was written. BUSY: until when somebody walks.
-- The newer of two is the one with the greater NUMBER, then the one of the later FIRST. So restarts decide nothing.
-- needs: _lib/clock

local RETIRE_MS = 600000  -- jobs that only a gone version declares retire so long after it, if a living one has others of its jobs
local FORGET_MS = 86400000  -- else so long after it; and then it is forgotten
local MOST_VERSIONS, MOST_AFTER = 64, 8
local WALK_MS = 60000
local HEARD_MS = 30000

-- All of them. What can't be read is as good as lost: instances say it again.
local function versions_read(key)
  local text = redis.call('GET', key) or ''
  local since, busy = string.match(text, '^(%d+) (%d+)')
  local all = {key = key, since = tonumber(since) or now, busy = tonumber(busy) or 0, of = {}}
  for id, first, till, again, state, after, number in string.gmatch(text, '\n(%x+) (%d+) (%d+) (%d+) (%l+) (%S+) (%S+)') do
    all.of[id] = {id = id, first = tonumber(first), till = tonumber(till), again = tonumber(again), state = state, after = after, number = number}
  end
  return all
end

local function versions_write(all)
  local lines = {}
  for _, one in pairs(all.of) do lines[#lines + 1] = one end
  table.sort(lines, function(a, b) return a.till > b.till or (a.till == b.till and a.id < b.id) end)
  for i, one in ipairs(lines) do
    lines[i] = i <= MOST_VERSIONS and table.concat({'\n' .. one.id, int(one.first), int(one.till), int(one.again), one.state, one.after, one.number}, ' ') or ''
  end
  redis.call('SET', all.key, int(all.since) .. ' ' .. int(all.busy) .. table.concat(lines))
end

-- Whether `one` is newer than `other`.
local function version_above(one, other)
  if one.number ~= other.number then
    if one.number == '-' or other.number == '-' then return other.number == '-' end
    local mine, theirs = string.gmatch(one.number, '%d+'), string.gmatch(other.number, '%d+')
    local a, b
    repeat
      a, b = mine(), theirs()
      local more = tonumber(a or 0) - tonumber(b or 0)
      if more ~= 0 then return more > 0 end
    until not (a or b)
  end
  if one.first ~= other.first then return one.first > other.first end
  return one.id > other.id
end

-- Whether another version has, or had, jobs of this one; and note that it has.
local function version_has(one, id)
  return string.find(one.after, id, 1, true) ~= nil
end

local function version_note(all, one, id)
  if version_has(one, id) then return end
  one.after, all.changed = one.after == '-' and id or string.match(id .. ',' .. one.after, '^' .. string.rep('%x*,?', MOST_AFTER)), true
end

-- Have the instances of a version declare their jobs again.
local function version_again(one)
  one.again = math.max(one.again + 1, now)
end

-- An instance says that it declares this version. `first`: as it was told before, if the store has lost that since; 0: it was not told.
local function version_heard(all, id, number, first, ttl)
  local one = all.of[id]
  if not one then
    local again = math.max(now, first + 1)  -- another than it was told, if it was told one
    if first == 0 then
      first = now
      for _, other in pairs(all.of) do first = math.max(first, other.first + 1) end  -- also if the clock was set back
    end
    one = {id = id, first = first, again = again, after = '-', number = number}
    all.of[id], all.changed = one, true
  elseif one.state ~= 'lives' or one.till < now then
    version_again(one)
  end
  if first > 0 then one.first = math.min(one.first, first) end
  one.state, one.till = 'lives', now + ttl
  return one
end

-- The version that a caller says is its own, as `beat/heartbeat` takes it; nil: none.
local function version_said(all, text, ttl)
  local id, first, number = string.match(text, '^(%x+) (%d+) (%S+)')
  return id and (ttl or not all.of[id]) and version_heard(all, id, number, tonumber(first), ttl or HEARD_MS) or all.of[id]
end

-- The versions of which this one has jobs, as far as this shard knows: eight of them, with commas between.
local function versions_before(all, one)
  local found = {}
  for id, other in pairs(all.of) do
    if #found < MOST_AFTER and version_has(other, one.id) then found[#found + 1] = id end
  end
  return table.concat(found, ',')
end

-- It has jobs of these on other shards.
local function version_follows(all, one, before)
  for id in string.gmatch(before, '%x+') do
    local other = all.of[id]
    if other and other ~= one then version_note(all, other, one.id) end
  end
end

-- Which versions have gone. Those whose jobs such a one has taken over declare them again: they may be the newest again. After a day a
-- version is forgotten. A clock that was set back prolongs no life.
local function versions_look(all, ttl)
  for id, one in pairs(all.of) do
    one.till = math.min(one.till, now + ttl + 60000)
    if one.state == 'lives' and one.till < now then
      one.state = 'gone'
      for _, other in pairs(all.of) do
        if other.till >= now and version_has(other, id) then version_again(other) end
      end
    elseif one.state == 'over' and one.till + FORGET_MS < now then
      all.of[id] = nil
    end
  end
end

-- Whether a living version has jobs of this one, or of one that had.
local function version_followed(all, one, seen)
  seen = seen or {}
  seen[one.id] = true
  for id in string.gmatch(one.after, '%x+') do
    local other = all.of[id]
    if other and not seen[id] and (other.till >= now or version_followed(all, other, seen)) then return true end
  end
  return false
end

-- Whether jobs that this version was the last to declare are to retire.
local function version_is_over(all, id)
  local one = all.of[id]
  if not one then return all.since + FORGET_MS < now end
  if one.till >= now then return false end
  return one.till + (version_followed(all, one) and RETIRE_MS or FORGET_MS) < now
end

-- Whether there may be jobs to retire, for which nobody has looked.
local function versions_to_walk(all)
  for id, one in pairs(all.of) do
    if (one.state == 'gone' or one.state == 'walking') and version_is_over(all, id) then return true end
  end
  return false
end

-- The version by which a program declared a job, of "REV JSON" or of the JSON alone; nil: nobody said it.
local function version_of(definition)
  local _, at = string.find(definition, '^[^{]*{"needs":%d+,')
  if not at then _, at = string.find(definition, '^[^{]*{') end
  return at and string.match(definition, '^"origin":"code","version":"(%x+)"', at + 1)
end

-- Whether version `own` may declare a job that version `theirs` has declared: not while that lives, and is newer.
local function version_may(all, own, theirs)
  local other = all.of[theirs]
  if not other or other == own then return true end
  local may = other.till < now or not version_above(other, own)
  local behind, ahead = may and other or own, may and own or other
  version_note(all, behind, ahead.id)
  return may
end

-- Version `own` has declared a job that was not there: newer ones which live may have lost it.
local function version_makes(all, own)
  if all.made then return end
  all.made = true
  for _, other in pairs(all.of) do
    if other ~= own and other.till >= now and version_above(other, own) then
      version_again(other)
      all.changed = true
    end
  end
end
