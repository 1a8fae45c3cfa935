-- backfill/step: go on with a job's backfill: count which of its slots have ended, and fire the next that have not run.
--
-- KEYS[1..27] of _lib/task
-- KEYS[28] job           hash  job -> "REV JSON"
-- KEYS[29] job:slot      hash  job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[30] backfill      hash  see _lib/backfill
-- KEYS[31] backfill:due  zset
-- KEYS[32] calendar      hash  see _lib/calendar
-- KEYS[33] job:changes   hash  see _lib/pause
-- KEYS[34] job:paused    hash
-- ARGV[1]  job        str
-- ARGV[2]  id         str   of the backfill
-- ARGV[3]  at         int   ms; where the caller saw it stand
-- ARGV[4]  rev        str   of the definition that the slots are of
-- ARGV[5]  slots      text  the next ones, a line each: "SLOT"; of a day that calendars exclude "SLOT LAST COUNT CALENDAR ENTRY"; "SLOT:BEFORE:AFTER" of
--                           a time in which the job had another trigger, with the slots of that before and after it, -1: none
-- ARGV[6]  before     int   ms; the slot before the first of them; -1: none
-- ARGV[7]  following  int   ms; the slot after the last of them; -1: none
-- ARGV[8]  calendars  str   by which the job excludes, as the caller has read them: "NAME REV NAME REV"
-- ARGV[9]  record     text  of a task: "MAX JSON"
-- ARGV[10] overlap    str   allow: `most` of its slots are under way at a time; else one, and no other task of the job
-- ARGV[11] most       int
-- ARGV[12] keep       str   how its ledger keeps, see _lib/ledger
-- ARGV[13] limit      int   the job ends after so many slots that were fired, which these are not; 0: never
-- ARGV[14] owner      str   of the caller
-- ARGV[15] channel    str   where it is told that what it waits for has ended
-- ARGV[16] hide_ms    int   if the caller dies, another goes on after this time
-- ARGV[17] row        int   it is paused when so many have failed in a row; 0: it is not
-- ARGV[18] said       text  what its slots' tasks keep of it, "BY \30 WHY"
--
-- Returns  {said, line, look_ms, waits, now_ms}  line: the backfill as it stands now. look_ms: when to go on; 0: it is over, or paused.
--                                                waits: the task for whose end it waits; empty: none
--          said DONE; UNKNOWN: there is none, or its job is gone; TOO_LATE: another was faster, or job or calendars have changed
--
-- A slot is fired if the ledger says that it was not: that is decided here, so nobody can fire it twice. What it fired stays counted, whoever
-- calls next. The place among its slots is compared: a call that is repeated, or two at once, find that it has moved on.
-- Slots of a pause that goes on are fired as well: the job then stands behind them, so that its resuming does not skip them. Of a job that has
-- retired none is fired: there is nobody to run it.
-- include: _lib/backfilling _lib/calendar _lib/pause

return answer(function()
  local job, rev, overlap, most, keep = ARGV[1], ARGV[4], ARGV[10], tonumber(ARGV[11]), ARGV[12]
  local backfills, when = page(KEYS[30]), index(KEYS[31])
  local places = page(KEYS[29])
  local line, definition, place = read(backfills, job), read(page(KEYS[28]), job), read(places, job) or ''
  if not line or not definition then return {RESULT.UNKNOWN, '', 0, '', now} end
  local b = backfill_parse(backfills, job, line)
  local fits = string.match(definition, '^%S+') == rev and calendars_agree(page(KEYS[32]), ARGV[8])
  if b.id ~= ARGV[2] or b.at ~= tonumber(ARGV[3]) or not fits then return {RESULT.TOO_LATE, line, 0, '', now} end
  counter_read(q.fence)  -- nothing is moved on unless a task can be queued
  backfill_count(job, b)
  local row = tonumber(ARGV[17])
  local stops = schedule_retired(place) and {'retire', 'no instance that lives declares the job'} or row > 0 and b.row >= row and {'pause_after', row .. ' failed in a row'}
  if b.state == 'running' and stops then
    b.state, b.row = 'paused', 0
    change_note(page(KEYS[33]), job, change_text('pause_backfill', now, 0, unpack(stops)))
  end

  local items = {}
  for item in string.gmatch(ARGV[5], '[^\n]+') do items[#items + 1] = item end
  local before, waits, look, clock = tonumber(ARGV[6]), nil, now, time[1] * 1000000 + time[2]
  local at = backfill_place(place, places, page(KEYS[34]), job)
  for n = 1, b.state == 'running' and #items or 0 do
    local slot, older, day = string.match(items[n], '^(%d+)([^ ]*) ?(.*)$')
    slot = tonumber(slot)
    local following, last = tonumber(items[n + 1] and string.match(items[n + 1], '^%d+') or ARGV[7]), slot
    if following < 0 then following = nil end
    b.at = slot
    if day ~= '' then
      local until_ms, count, detail = string.match(day, '^(%d+) (%d+) (.*)$')
      local known, problem = attempt(ledger_of, job, slot)
      last = tonumber(until_ms)
      backfill_pass(at, slot, before, following, keep)
      if not known and not problem then ledger_several(job, 'skipped', slot, last, tonumber(count), REASON.EXCLUDED, detail, keep) end
      b.excluded = b.excluded + tonumber(count)
    else
      local left, found, first = backfill_verdict(job, slot, b)
      if left then
        b[left] = b[left] + 1
      else
        if #b.open >= (overlap == 'allow' and most or 1) then waits = slot_id(job, b.open[1]) end
        if b.every > 0 and b.next > clock then look = math.ceil(b.next / 1000) elseif waits or slot >= at.beats then look = now + 1000 end
        if look > now then break end
        backfill_pass(at, slot, before, following, keep)
        local behind = overlap ~= 'allow' and backfill_behind(job, ARGV[14])
        backfill_fire(job, slot, ARGV[9], ARGV[18], ARGV[14], overlap, behind, tonumber(ARGV[13]), keep)
        if found then ledger_split(job, slot, found, first, backfill_around(older, before, following)) end
        b.fired, b.open[#b.open + 1] = b.fired + 1, slot
        if b.every > 0 then b.next = (b.next > 0 and math.max(b.next, clock - 100000) or clock) + b.every end
      end
    end
    before, b.at = last, following or b.to
  end

  local follows = tonumber(ARGV[7])
  if items[1] == nil and (follows < 0 or follows >= b.to) then b.at = b.to end  -- the trigger was changed: none is left
  if b.state == 'running' and b.at >= b.to and #b.open == 0 then b.state, b.ended = 'done', now end
  if b.open[1] and (b.at >= b.to or b.state ~= 'running') then waits, look = slot_id(job, b.open[1]), now + 1000 end
  if not b.open[1] and b.state ~= 'running' then look = 0 end
  if waits then enter(q.awaited, waits .. '\255' .. ARGV[15], 0) end
  backfill_keep(job, b, keep)
  line = backfill_text(b)
  write(backfills, job, line)
  enter(when, job, look > 0 and look + tonumber(ARGV[16]) or b.state == 'paused' and BACKFILL_NEVER or b.ended + BACKFILL_MS)
  return {RESULT.DONE, line, look, waits or '', now}
end)
