-- job/history: what became of all jobs, by when it was fired, skipped, found missed or triggered, the newest first.
--
-- KEYS[1] task          hash  see _lib/record
-- KEYS[2] task:failure  hash
-- KEYS[3] ledger:order  zset  see _lib/ledger
-- KEYS[4] job           hash
-- KEYS[5] job:tag       zset  see _lib/tags
-- ARGV[1] odd           int   1: only what did not end well, or was triggered
-- ARGV[2] until         int   ms; what was entered later is left out
-- ARGV[3] since         int   ms; and so is what was entered earlier
-- ARGV[4] states        list  of records; only those in one of them; empty: all
-- ARGV[5] limit         int   how many entries to look at; all of a millisecond are
-- ARGV[6] tag           str   as JSON has it: only of jobs with this tag; empty: of all
--
-- Returns  {next_ms, rows, looked}  rows: {at_ms, id, record, failure} each; next_ms: ask again with it as `until`; -1: that is all
--                                  looked 0: at nothing, for the index of tags does not know all jobs
-- include: _lib/tags

local LINES, MOST = 16, 64  -- that are read at once; and how often
local PASSED = 2500  -- entries of other jobs, of which nothing is read
local log, limit, states = ARGV[1] == '1' and '\255\255' or '\255', tonumber(ARGV[5]), {}
for _, state in ipairs(cjson.decode(ARGV[4])) do states[state] = true end
-- What lies ahead was entered before the clock was set back, see job/ledger.
local low = '[' .. log .. string.format('%015.0f', ARGV[3])
local high = '(' .. log .. string.format('%015.0f', math.min(tonumber(ARGV[2]), now + 100)) .. '\255'

local tag, passed = ARGV[6], 0
if tag ~= '' and not tags_whole(KEYS[5], KEYS[4]) then return {-1, {}, 0} end

-- Those of a line's entries whose job has the tag.
local function tagged(line)
  local some, names = {}, {}
  for member in string.gmatch(line, '\254([^\254]+)') do
    some[#some + 1] = member
    names[#some] = tag .. '\255' .. (string.match(member, '^(.*)\255%d+$') or string.match(member, '^(.*)!%x+$') or member)
  end
  if tag == '' or not some[1] then return some end
  local kept = {}
  for i, score in ipairs(redis.call('ZMSCORE', KEYS[5], unpack(names))) do
    if score then kept[#kept + 1] = some[i] end
  end
  passed = passed + #some - #kept
  return kept
end

local ids, members, times, at, following = {}, {}, {}, nil, nil
for turn = 0, MOST - 1 do
  local lines = redis.call('ZREVRANGEBYLEX', KEYS[3], high, low, 'LIMIT', turn * LINES, LINES)
  for _, line in ipairs(lines) do
    local when = tonumber(string.sub(line, #log + 1, #log + 15))
    if when ~= at and (#ids >= limit or passed >= PASSED) then following = when end
    if following then break end
    at = when
    for _, member in ipairs(tagged(line)) do
      local job, slot = string.match(member, '^(.*)\255(%d+)$')
      ids[#ids + 1] = job and job .. '@' .. int(slot) or member
      members[#ids], times[#ids] = member, when
    end
  end
  if following or #lines < LINES then break end
  if turn == MOST - 1 then following = at - 1 end
end
local rows = {}
for first = 1, #ids, 1000 do
  local some = {unpack(ids, first, math.min(first + 999, #ids))}
  local records, failures = redis.call('HMGET', KEYS[1], unpack(some)), redis.call('HMGET', KEYS[2], unpack(some))
  local kept = redis.call('ZMSCORE', KEYS[3], unpack(members, first, math.min(first + 999, #ids)))
  for i, id in ipairs(some) do
    local record = (kept[i] or members[first + i - 1] == id) and records[i]
    if record and (not next(states) or states[string.match(record, '^%l*')]) then
      rows[#rows + 1] = {times[first + i - 1], id, record, failures[i] or ''}
    end
  end
end
return {following or -1, rows, 1}
