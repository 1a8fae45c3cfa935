-- _lib/stands: how a job stands, in the words of `jobs.list`.
-- needs: _lib/schedule

-- By what job:slot says.
local function stands(place)
  local slot, due = string.match(place or '', '^(%S+) (%S+)')
  if not slot then return nil end
  if slot ~= '-1' then return due == NEVER and 'paused' or 'scheduled' end
  return due == NEVER and 'by_hand' or schedule_retired(place) and 'retired' or 'ended'
end

-- Whether it may be failing, by its counts: most jobs can't be, which is told at once.
local function stands_uneasy(counts)
  local failed, lost = string.match(counts or '', '^%d+ %d+ (%d+) (%d+)')
  return failed and failed + lost > 0
end

-- Whether of its tasks the latest that succeeded or did not, did not.
local function stands_failing(order, tasks, job)
  for _, member in ipairs(redis.call('ZREVRANGEBYLEX', order, '(' .. job .. '\255\255', '[' .. job .. '\255', 'LIMIT', 0, 5)) do
    local slot = tonumber(string.sub(member, #job + 2))
    local became = slot and string.match(redis.call('HGET', tasks, job .. '@' .. int(slot)) or '', '^%l+')
    if became == 'dead' or became == 'done' then return became == 'dead' end
  end
  return false
end
