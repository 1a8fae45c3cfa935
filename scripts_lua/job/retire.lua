-- job/retire: a page of the jobs: those retire that a version declared which has gone for good, and that nobody else owns.
--
-- KEYS[1..4] of _lib/schedule
-- KEYS[5] job:changes  hash    see _lib/pause
-- KEYS[6] version      string  see _lib/version
-- ARGV[1] after        str     the cursor of the page before; empty: the first page
-- ARGV[2] limit        int     bounds the script's time
-- ARGV[3] by           str     who looks
--
-- Returns  {now_ms, cursor, *jobs}  those that retired; an empty cursor: this was the last page, or another is at it
--
-- Whoever begins has a minute until another may begin, too. A version counts as done at the end of a walk that began when it was over.
-- include: _lib/pause _lib/version

local after, limit, versions = ARGV[1], tonumber(ARGV[2]), versions_read(KEYS[6])
if after == '' then
  if versions.busy > now and versions.busy <= now + WALK_MS then return {now, ''} end
  versions.busy = now + WALK_MS
  for id, one in pairs(versions.of) do
    if one.state == 'gone' and version_is_over(versions, id) then one.state = 'walking' end
  end
end

local s = schedule_of(KEYS[1], KEYS[2], KEYS[3], KEYS[4])
local jobs, changes, found = range(s.order, after == '' and '-' or '(' .. after, '+', limit), page(KEYS[5]), {}
local cursor = #jobs == limit and jobs[limit] or ''
gather(s.defs, jobs)
for _, job in ipairs(jobs) do
  local id = version_of(read(s.defs, job) or '')
  if id and version_is_over(versions, id) then found[#found + 1] = job end
end
gather(s.slots, found)
gather(changes, found)
local out = {now, cursor}
for _, job in ipairs(found) do
  if schedule_retire(s, job) then
    change_note(changes, job, change_text('retire', now, 0, ARGV[3], 'no instance that lives declares it'))
    out[#out + 1] = job
  end
end
if cursor == '' then
  versions.busy = 0
  for _, one in pairs(versions.of) do
    if one.state == 'walking' then one.state = 'over' end
  end
end
if (after == '' or cursor == '') and next(versions.of) then versions_write(versions) end
return out
