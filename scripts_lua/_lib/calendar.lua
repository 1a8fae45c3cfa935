-- _lib/calendar: calendars, by name. Each shard has a copy of all, so that a script which fires can ask.
--
--   calendars  hash  NAME -> "REV NUMBER PUT_MS JSON". REV: a digest of what it says. NUMBER: grows with each put, on all shards alike.
--                    PUT_MS: when it was put. JSON: where its days come from and until when they are known, which no script reads
--   days       hash  NAME -> JSON: its days, which no script reads
--
-- Shard 0 numbers. A copy is written over an older one only, so the shards end up alike in whatever order two puts reach them.
-- needs: _lib/run _lib/results

-- Its REV, NUMBER and PUT_MS; nil: there is none, or it can't be read. What can't be read excludes nothing, and gives way to the next put.
local function calendar_read(calendars, name)
  local rev, number, put_ms = string.match(read(calendars, name) or '', '^(%x+) (%d+) (%d+) {')
  return rev, tonumber(number), tonumber(put_ms)
end

-- Whether the calendars are as the caller has read them: "NAME REV NAME REV"; REV "-": there was none, or it could not be read.
local function calendars_agree(calendars, said)
  for name, rev in string.gmatch(said, '(%S+) (%S+)') do
    if (calendar_read(calendars, name) or '-') ~= rev then return false end
  end
  return true
end
