-- event/take: hand out events that nobody is telling, and forget those that the caller has told; those of a job in order, to one at a time.
--
-- KEYS[1] ledger:order  zset  see _lib/events
-- KEYS[2] job:counts    hash
-- ARGV[1] words     list  the caller listens for these
-- ARGV[2] told      list  "FROM ID" of events that it has told
-- ARGV[3] keeps     list  of those that it is still telling
-- ARGV[4] limit     int   at most so many
-- ARGV[5] lease_ms  int   they are handed out again after this time, unless they are told or kept
--
-- Returns  {now_ms, next_ms, dropped, *events}  next_ms: when there may be more, 0: when it is told so. dropped: how many were, since somebody asked.
--          events: FROM, 15 characters, ID, 28, JOB \254 WORD TEXT
--
-- One that dies with events does not lose them: they come again. So the second may tell what the first had told, never two at a time.
-- include: _lib/events

local LISTENS_MS, OLD_MS = 600000, 3600000
local LOOK, CHAIN, EVENTS = 1000, 10, '\255\255\255'
local order, counts = index(KEYS[1]), page(KEYS[2])
local limit, lease, wanted, listened = tonumber(ARGV[4]), tonumber(ARGV[5]), {}, {}

local function at(ms) return EVENTS .. string.format('%015d', ms) end

-- An event may have been taken by another meanwhile, and told: then it is not found.
local function moved(keys, to)
  for _, key in ipairs(cjson.decode(keys)) do
    local member = range(order, '[' .. EVENTS .. key, '(' .. EVENTS .. key .. '\255', 1)[1]
    if member then
      leave(order, member)
      if to then enter(order, to .. string.sub(member, 19), 0) end
    end
  end
end

local said = read(counts, '\255') or ''
for word, ends in string.gmatch(said, ' (%l+) (%d+)') do
  ends = math.min(tonumber(ends), now + LISTENS_MS)
  if ends > now then listened[word] = ends end
end
local stale
for _, word in ipairs(cjson.decode(ARGV[1])) do
  wanted[word] = true
  if (listened[word] or 0) < now + LISTENS_MS / 2 then listened[word], stale = now + LISTENS_MS, true end
end
if stale then
  local text = ''
  for word, ends in pairs(listened) do text = text .. ' ' .. word .. ' ' .. int(ends) end
  write(counts, '\255', text)
end
moved(ARGV[2])
moved(ARGV[3], at(now + lease))

local dropped = tonumber(read(counts, '\255\255') or '0') or 0
local busy, found, chains, next_ms = {}, {}, {}, 0
for i, member in ipairs(range(order, '(' .. at(now + 1), '+', LOOK)) do
  if i == 1 then next_ms = tonumber(string.sub(member, 4, 18)) end
  busy[string.match(member, '^([^\254]*)', 47)] = true
end
busy[''] = nil
local waiting = range(order, '[' .. at(now + 2 * lease + 60000), '+', LOOK)  -- of before the clock was set back
for _, member in ipairs(range(order, '[' .. EVENTS, '(' .. at(now + 1), LOOK)) do waiting[#waiting + 1] = member end
for _, member in ipairs(waiting) do
  if #found == limit then break end
  local job, word = string.match(member, '^([^\254]*)\254(%l+) ', 47)
  local old = (tonumber(string.sub(member, 19, 28)) or 0) * 1000 < now - OLD_MS
  if old or not (word and listened[word]) then
    leave(order, member)
    if old then dropped = dropped + 1 end
  elseif wanted[word] and not busy[job] then
    leave(order, member)
    enter(order, at(now + lease) .. string.sub(member, 19), 0)
    found[#found + 1] = string.sub(at(now + lease), 4) .. string.sub(member, 19)
    chains[job] = (chains[job] or 0) + 1
    if job ~= '' and chains[job] == CHAIN then busy[job] = true end  -- they are told one by one, and the others' wait for none
  end
end
if #found == limit then next_ms = now end
if read(counts, '\255\255') then erase(counts, '\255\255') end
local out = {now, next_ms, dropped}
for _, text in ipairs(found) do out[#out + 1] = text end
return out
