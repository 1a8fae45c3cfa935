-- _lib/handing: how events are handed out to those who tell them. See _lib/events.
--
-- `h`: what one run knows. room: LINE -> how many the caller takes; asked: "LINE ID" -> told, keep or slow, "LINE ID FROM" -> back; waiting:
-- events that may be handed out; hooks, all: JOB -> true: its others wait, or from which line it is handed out in this run; next_ms; dropped; again, more: ask
-- again at once; or if any was handed out
-- needs: _lib/events

local HAND_MOST, HAND_LOOK, HAND_CHAIN = 160, 100, 10

-- Say that somebody listens at these lines. Where nobody does any more, what is left is of no use.
local function hand_listen(h, lines)
  local said, stale, text = {}, false, ''
  for line, ends in string.gmatch(read(h.counts, '\255') or '', ' (%l+) (%d+)') do said[line] = tonumber(ends) end
  for _, line in ipairs(lines) do
    local ends = said[line] or 0
    -- Further ahead: the clock was set back.
    if ends < now + LISTENS_MS / 2 or ends > now + LISTENS_MS then said[line], stale = now + LISTENS_MS, true end
  end
  for line, ends in pairs(said) do
    local start = '\255\255\255' .. line
    local left = ends <= now and range(h.order, '[' .. start .. ' ', '(' .. start .. '/', HAND_LOOK) or {}
    for _, member in ipairs(left) do leave(h.order, member) end
    if ends > now or left[1] then text = text .. ' ' .. line .. ' ' .. int(math.min(ends, now + LISTENS_MS)) else stale = true end
  end
  if stale then write(h.counts, '\255', text) end
end

-- It is in hand until `from`.
local function hand_hold(h, line, job, from, slow)
  h.next_ms = h.next_ms == 0 and from or math.min(h.next_ms, from)
  if job ~= '' and slow == '-' then h[line == 'all' and 'all' or 'hooks'][job] = true end
end

local function hand_out(h, line, id, job, text, from, slow)
  enter(h.order, '\255\255\255' .. line .. ' ' .. id .. ' ' .. string.format('%015d', from) .. slow .. job .. text, 0)
end

-- What is in hand of a line: it is told, kept or given back, or its instance has died. How many are.
local function hand_held(h, line, lease, old)
  local start, held = '\255\255\255' .. line, 0
  for _, member in ipairs(range(h.order, '[' .. start .. ' ', '(' .. start .. '.', HAND_LOOK + HAND_MOST)) do
    local id, from, slow, job, text = string.match(member, '^(%x+) (%d+)([~-])([^\254]*)(.*)$', #start + 2)
    local what = not id and 'told' or h.asked[line .. ' ' .. id] or h.asked[line .. ' ' .. id .. ' ' .. from]
    from = tonumber(from)
    if what == 'keep' or what == 'slow' then
      leave(h.order, member)
      hand_out(h, line, id, job, text, now + lease, what == 'slow' and '~' or '-')
      hand_hold(h, line, job, now + lease, what == 'slow' and '~' or '-')
      held = held + 1
    elseif what then
      leave(h.order, member)
      if what == 'back' then enter(h.order, start .. '.' .. id .. job .. text, 0) end
    elseif from > now and from <= now + 2 * lease + 60000 then  -- further ahead: of before the clock was set back
      hand_hold(h, line, job, from, slow)
      held = held + 1
    elseif string.sub(id, 1, 10) < old then
      leave(h.order, member)
      h.dropped = h.dropped + 1
    else
      h.waiting[#h.waiting + 1] = {line = line, id = id, job = job, text = text, member = member}
    end
  end
  return held
end

-- What waits in a line, its oldest, without what is too old. Whether there may be more.
local function hand_waiting(h, line, old)
  local start = '\255\255\255' .. line
  local gone = range(h.order, '[' .. start .. '.', '(' .. start .. '.' .. old, HAND_LOOK)
  for _, member in ipairs(gone) do leave(h.order, member) end
  h.dropped, h.again = h.dropped + #gone, h.again or #gone == HAND_LOOK
  if h.room[line] <= 0 then return end
  local found = range(h.order, '[' .. start .. '.' .. old, '(' .. start .. '/', HAND_LOOK)
  for _, member in ipairs(found) do
    local job, text = string.match(member, '^([^\254]*)(.*)$', #start + 30)
    h.waiting[#h.waiting + 1] = {line = line, id = string.sub(member, #start + 2, #start + 29), job = job, text = text, member = member}
  end
  h.more = h.more or #found == HAND_LOOK
end

-- Whether it is handed out now: those of a job in order, so many at a time, and all to one; of hooks, which are functions of their own, from one line.
local function hand_may(h, one)
  local jobs, room = h[one.line == 'all' and 'all' or 'hooks'], h.room[one.line]
  if room <= 0 then
    -- It has no room for more of that kind, so the job's others wait: unless it takes none at all, for its hook may hang.
    if h.limit[one.line] > 0 and one.job ~= '' then jobs[one.job] = true end
    return false
  end
  local chain = jobs[one.job]
  if chain == true or chain and (chain.line ~= one.line or chain.count == HAND_CHAIN) then
    jobs[one.job] = true
    return false
  end
  if one.job ~= '' then jobs[one.job] = {line = one.line, count = (chain and chain.count or 0) + 1} end
  h.room[one.line] = room - 1
  return true
end
