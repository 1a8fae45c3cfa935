-- job/strips: of each job its latest slots, the newest first, and what became of them, in a word.
--
-- KEYS[1] task          hash  see _lib/record
-- KEYS[2] ledger:order  zset  see _lib/ledger
-- ARGV[1] job           str
-- ARGV[2] limit         int   how many slots
-- Batch: ARGV[1..2] repeat, one group a call, at most 8 a run.
--
-- Returns  {record, *marks}  record: of the newest, or empty. marks: "SLOT STATE HOW TOOK" each; HOW its last attempt ended, "-": it has none,
--          or runs; of one that was skipped, the CODE of why. TOOK: ms from that attempt's begin to its end, "-": it has not ended, or nobody
--          saw. STATE "unread": what the ledger has of it can't be read
-- include: _lib/clock

local ids, members = {}, {}
for i = 1, #ARGV, 2 do
  local job = ARGV[i]
  -- What lies ahead was entered before the clock was set back, see job/ledger.
  local high, low = '[' .. job .. '\255' .. string.format('%015.0f', now + 100), '[' .. job .. '\255'
  members[i] = redis.call('ZREVRANGEBYLEX', KEYS[2], high, low, 'LIMIT', 0, math.min(tonumber(ARGV[i + 1]), 100))
  for at, member in ipairs(members[i]) do
    local slot = tonumber(string.sub(member, #job + 2))
    members[i][at] = slot and int(slot) or '0'
    ids[#ids + 1] = job .. '@' .. members[i][at]
  end
end
local records, place = #ids > 0 and redis.call('HMGET', KEYS[1], unpack(ids)) or {}, 0
return each(2, function(i)
  local out = {''}
  for at, slot in ipairs(members[i]) do
    place = place + 1
    local record = records[place] or ''
    local state, tries = string.match(record, '^(%l+) [^\255]*\255([^\255]*)\255')
    -- The last attempt: "N FENCE BEGAN ENDED HOW OWNER".
    local began, ended, how
    if tries then began, ended, how = string.match(string.match(tries, '([^\254]*)$'), '^%d+ %d+ (%d+) (%d+) (%S+)') end
    if state == 'skipped' then how = string.match(record, '^%l+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ ([^ \255]+) ') end
    local took = how ~= 'lost' and ended and ended ~= '0' and int(math.max(ended - began, 0)) or '-'
    if at == 1 then out[1] = record end
    out[#out + 1] = slot .. ' ' .. (state or 'unread') .. ' ' .. (how or '-') .. ' ' .. took
  end
  return out
end)
