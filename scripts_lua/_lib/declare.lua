-- _lib/declare: a job is declared. A new one begins with the slot given, a known one keeps its slot unless its trigger changed.
--
-- A slot that has come due while the call was on its way may have been fired by the definition that is replaced, or before a
-- FLUSHALL: it must not begin with that one.
-- A paused job stays paused. One that is new is not, whatever is left of an earlier one of its name.
-- A retired job has slots again from the one given on; those of the meantime go into its ledger.
--
-- `s` is the schedule with more: `changes`, see _lib/pause; `tags`; and where programs declare, `versions`, and `version`, which is the caller's own.
-- needs: _lib/ledger _lib/pause _lib/origin _lib/tags _lib/version _lib/results

-- Read what declaring these jobs needs.
local function declare_gather(s, jobs)
  for _, part in ipairs({s.defs, s.order, s.dues, s.paused}) do gather(part, jobs) end
end

-- When the shard was first written to: now, if nobody has said it.
local function declare_epoch(key)
  local epoch = tonumber(redis.call('GET', key) or 'none')
  if not epoch then
    epoch = time[1] * 1000000 + time[2]
    redis.call('SET', key, int(epoch))
  end
  return epoch
end

-- The slot at which a job stands that keeps it when it is declared so, and all that job:slot says; nil: it begins anew.
local function declare_keeps(s, job, rev)
  local old = read(s.slots, job)
  if not old then return nil, nil end
  local keeps = not schedule_retired(old) and string.match(old, '^%S+ %S+ ([^. ]+)') == string.match(rev, '^[^.]+')
  return keeps and tonumber(string.match(old, '^%S+')) or nil, old
end

-- Why a job can't be declared so by `origin`: NEWER: it needs a newer version than the caller's, which reads `reads`; ANOTHERS: it is another
-- origin's, and not to be taken; STALE: a newer version of the code has it, and lives; TOO_LATE: the slot no longer lies after now. And
-- whose it is. nil: it can.
local function declare_refused(s, job, rev, origin, slot, reads, take)
  local line, owned = read(s.defs, job), nil
  if line then
    local needs = tonumber(string.match(line, '^%S+ {"needs":(%d+)'))
    owned = origin_of(line)
    if needs and needs > reads then return RESULT.NEWER, owned end
    if owned and not take and owned ~= origin then return RESULT.ANOTHERS, owned end
    local before = s.version and version_of(line)
    if before and not version_may(s.versions, s.version, before) then return RESULT.STALE, owned end
  end
  local was = declare_keeps(s, job, rev)
  if (not was or (was > now and was ~= slot)) and slot >= 0 and slot <= now then return RESULT.TOO_LATE, owned end
  return nil, owned
end

-- Why it begins anew, for the log of changes; and the trigger that it had, for a backfill of that time.
local MOST_TRIGGER = 500
local function declare_before(line)
  local trigger = string.match(line, '"trigger":(%b{})') or ''
  return 'another trigger' .. (#trigger <= MOST_TRIGGER and '\30' .. trigger or '')
end

-- Declare it as `origin`'s. Returns NEW, CHANGED or NO (as it was), whether anything of it has changed, and whether it stands at another slot after now
-- than the one given. `since`: it was last seen then, and the store has been emptied since; 0: no. `by`: who declares it.
local function declare(s, owners, origin, job, rev, definition, slot, due, since, keep, rules, limit, by)
  local line, words, code, changed = read(s.defs, job), rev .. ' ' .. rules, RESULT.NO, false
  local known, owned = line and string.match(line, '^(%S+) '), line and origin_of(line) or nil
  local was, old = declare_keeps(s, job, rev)
  if known ~= rev or owned ~= origin or version_of(line) ~= version_of(definition) then write(s.defs, job, rev .. ' ' .. definition) end
  if not known or owned ~= origin then origin_passes(owners, job, owned, origin) end
  if known ~= rev then
    code, changed = known and RESULT.CHANGED or RESULT.NEW, true
    tags_pass(s.tags, job, line, definition)
    if s.version and not known then version_makes(s.versions, s.version) end
    if known then change_note(s.changes, job, change_text('put', now, 0, by, was and '' or declare_before(line))) end
  end
  local first = old and schedule_retired(old)
  if first then
    changed = true
    if first >= 0 and first <= now then ledger_several(job, 'skipped', first, now, -1, REASON.RETIRED, '', keep) end
    change_note(s.changes, job, change_text('return', now, 0, '', 'the code declares it again'))
    erase(s.slots, job)  -- so that its pause decides, if it has one
    schedule_place(s, job, slot, due, words)
  elseif known ~= rev then
    if was then
      write(s.slots, job, (string.gsub(old, '^(%S+ %S+) %S+', '%1 ' .. rev)))
    elseif not known then
      if not old and read(s.paused, job) then erase(s.paused, job) end
      schedule_place(s, job, slot, due, words)
      if since > 0 then ledger_missed(job, since, now, -1, REASON.EMPTIED, '', keep) end
    elseif old then
      local stood = tonumber(string.match(old, '^%S+'))
      if stood >= 0 and stood <= now and schedule_until(s, job) then
        ledger_several(job, 'skipped', stood, now, -1, REASON.PAUSED, 'somebody', keep)
      elseif stood >= 0 and stood <= now then
        ledger_missed(job, stood, stood, 1, REASON.TRIGGER_CHANGED, '', keep)
      end
      schedule_place(s, job, slot, due, words)
    end
  end
  if not read(s.order, job) then
    changed = true
    enter(s.order, job, 0)
  end
  if known and not old then
    changed = true
    schedule_place(s, job, slot, due, words)
    if slot >= 0 then ledger_lost(job, keep) end
  elseif was and not read(s.dues, job) then
    changed = true
    enter(s.dues, job, schedule_when(s, job, old))
  end
  if counted_out(job, limit) then schedule_end(s, job, words, LIMIT_MS) end
  return code, changed, not first and was and was > now and was ~= slot
end
