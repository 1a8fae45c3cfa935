-- _lib/past: what the ledger of a job lacks: "SINCE PAST FROM TO GONE", beside its counts under JOB \255.
--
-- Slots between SINCE and PAST were forgotten; 0: none. Those from FROM on and before TO are kept, whatever `keep` says: a backfill has fired
-- them. GONE: how many entries were forgotten, so that a loss of others shows.

local PAST_UNCOUNTED = 9007199254740992  -- written before they were counted

-- `text` nil: it lacks nothing.
local function past_parse(text)
  local since, past, from, to, gone = string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) ?(%d*)$')
  local lacks = {since = tonumber(since) or 0, past = tonumber(past) or 0, from = tonumber(from) or 0, to = tonumber(to) or 0}
  lacks.gone = tonumber(gone) or lacks.past > 0 and PAST_UNCOUNTED or 0
  return lacks
end

local function past_text(lacks)
  return string.format('%d %d %d %d %d', lacks.since, lacks.past, lacks.from, lacks.to, lacks.gone)
end

-- Whoever has run so often that its ledger of `entries` can't tell of it, or has entries and no counts, has lost keys: of all that came until
-- now, and is not in the ledger, nobody knows whether it ran. `counts`: the job's; nil: it has none. Returns whether that is so.
local function past_look(lacks, counts, entries, at)
  local fired = counts and tonumber(string.match(counts, '^%d+') or 0)
  if not fired and entries == 0 or fired and fired <= entries + lacks.gone then return false end
  lacks.since, lacks.past, lacks.gone = 0, at, math.max(lacks.gone, (fired or 0) - entries)
  return true
end
