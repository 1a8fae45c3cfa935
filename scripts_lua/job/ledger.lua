-- job/ledger: a job's latest slots, the newest first, and what became of them.
--
-- KEYS[1] task          hash  see _lib/record
-- KEYS[2] task:failure  hash
-- KEYS[3] ledger:order  zset  see _lib/ledger
-- ARGV[1] job           str
-- ARGV[2] before        int   ms; only slots before this one; 0: from the newest; -1: the oldest
-- ARGV[3] limit         int
--
-- Returns  {{slot_ms, record, failure}, ...}  record: of the slot's task; failure: JSON of its last one, or empty; or, of an entry that
--          names no slot, what can't be read
-- include: _lib/clock

local job, before = ARGV[1], tonumber(ARGV[2])
-- From the newest that has come due: what lies ahead was entered before the clock was set back.
local high = before == 0 and '[' .. job .. '\255' .. string.format('%015.0f', now + 100)
  or '(' .. job .. '\255' .. string.format('%015.0f', before)
local members, slots, ids, low = nil, {}, {}, '[' .. job .. '\255'
if before < 0 then
  members = redis.call('ZRANGEBYLEX', KEYS[3], low, '(' .. job .. '\255\255', 'LIMIT', 0, ARGV[3])
else
  members = redis.call('ZREVRANGEBYLEX', KEYS[3], high, low, 'LIMIT', 0, ARGV[3])
end
if #members == 0 then return {} end
for i, member in ipairs(members) do
  slots[i] = tonumber(string.sub(member, #job + 2)) or false
  ids[i] = job .. '@' .. (slots[i] and int(slots[i]) or '')
end
local records, failures, out = redis.call('HMGET', KEYS[1], unpack(ids)), redis.call('HMGET', KEYS[2], unpack(ids)), {}
for i, slot in ipairs(slots) do
  out[i] = slot and {slot, records[i] or '', failures[i] or ''} or unread(KEYS[3], members[i])
end
return out
