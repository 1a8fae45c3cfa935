-- _lib/backfill: a job's backfill: its past slots that have not run are fired, one after the other.
--
--   backfills  hash  JOB -> "ID STATE FROM TO AT NEXT EVERY UNKNOWN SINCE PAST BEGAN ENDED TOTAL FIRED DONE FAILED CANCELLED MISSED KNOWN
--                    EXCLUDED LEFT ROW \254BY\254WHY\254OPEN"
--   when       zset  JOB by when to look at it next
--
-- ID: of the call that began it. STATE: running, paused, done, cancelled. Its slots are those from FROM on and before TO, in ms; those
-- before AT were looked at. NEXT: no slot is fired before, in us; EVERY: so far apart they are fired; 0: no matter. UNKNOWN 1: slots are
-- fired as well of which nobody knows whether they ran. SINCE, PAST: between these the ledger had forgotten slots when it began.
-- BEGAN, ENDED: of the backfill. TOTAL: as many slots were counted when it began.
-- What became of them: FIRED, and of those DONE, FAILED, CANCELLED, or MISSED: not begun; KNOWN: they had run, or were at it; EXCLUDED by
-- calendars; LEFT: nobody knows whether they ran. ROW: so
-- many failed in a row. OPEN: slots that were fired and are not counted yet, separated by spaces.
-- One that has ended is kept for a week, as a dead task is.
-- needs: _lib/run _lib/results

local BACKFILL_MS = 7 * 86400 * 1000
local BACKFILL_NEVER = 253402300800000

local function backfill_parse(part, job, text)
  local b, by, why, open = {}, nil, nil, nil
  b.id, b.state, b.from, b.to, b.at, b.next, b.every, b.unknown, b.since, b.past, b.began, b.ended, b.total, b.fired, b.done, b.failed, b.cancelled, b.missed,
    b.known, b.excluded, b.left, b.row, by, why, open = string.match(text, '^(%S+) (%l+)' .. string.rep(' (%d+)', 20) .. ' \254([^\254]*)\254([^\254]*)\254([%d ]*)$')
  if not b.id then unreadable(part[KEY], job) end
  for what, said in pairs(b) do
    if what ~= 'id' and what ~= 'state' then b[what] = tonumber(said) end
  end
  b.by, b.why, b.open = by, why, {}
  for slot in string.gmatch(open, '%d+') do b.open[#b.open + 1] = tonumber(slot) end
  return b
end

local function backfill_text(b)
  local open = {}
  for at, slot in ipairs(b.open) do open[at] = int(slot) end
  return b.id .. ' ' .. b.state .. string.format(string.rep(' %d', 20), b.from, b.to, b.at, b.next, b.every, b.unknown, b.since, b.past, b.began, b.ended, b.total,
    b.fired, b.done, b.failed, b.cancelled, b.missed, b.known, b.excluded, b.left, b.row) .. ' \254' .. b.by .. '\254' .. b.why .. '\254' .. table.concat(open, ' ')
end

-- Whether it has yet to do something, or to count something.
local function backfill_over(b)
  return (b.state == 'done' or b.state == 'cancelled') and #b.open == 0
end
