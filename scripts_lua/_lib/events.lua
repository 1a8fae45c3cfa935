-- _lib/events: what became of slots, tasks and jobs, kept for one instance that listens. Anybody's call may decide it: a command's, or that of a
-- client that has no hooks.
--
--   order   zset  behind the logs of _lib/ledger, of score 0: \255\255\255 LINE "." ID JOB \254 WORD TEXT: it waits;
--                 \255\255\255 LINE " " ID " " FROM SLOW JOB \254 WORD TEXT: it is in hand: an instance tells it, until FROM, 15 digits, in ms, see
--                 _lib/handing. SLOW ~: its job's others do not wait for it; else -. ID: 20 digits, by which events stand in order, and 8 of a sum over it. JOB empty:
--                 of a task that was spawned. TEXT: a list of texts, as JSON
--   counts  hash  \255 -> " LINE UNTIL LINE UNTIL": where somebody listens; \255\255 -> how many were dropped for want of room
--
-- There is a LINE for each WORD that has a hook, and one, `all`, for monitors. So none waits for another, nor takes its room.
--
-- WORD       fields                                   told when
-- fired      ID                                       a slot was fired
-- done       ID JSON ATTEMPT FENCE BEGAN ENDED        the task of a slot, or of a triggered run, is done. JSON: of its record
-- cancelled  ID CODE DETAIL                           a slot's task was cancelled
-- missed     ID CODE DETAIL JSON                      slots are not fired. JSON: {"last", "count"}, where it is not one alone
-- skipped    ID CODE DETAIL JSON
-- lost       ID JSON ATTEMPT FENCE OWNER CODE MOST    an attempt was taken back. MOST: there may be so many
-- dead       ID JSON ATTEMPTS CODE DETAIL             a task's last attempt did not do it
-- paused     BY WHY UNTIL                             a job was paused
--
-- Where nobody listens nothing is kept. What was kept for those who did goes when it is an hour old, here if they all have left.
-- needs: _lib/run _lib/messages

local EVENTS_MOST, EVENTS_FORGET = 10000, 100
local EVENTS_OLD_MS, LISTENS_MS = 3600000, 600000

-- Nobody listens. If nobody does anywhere any more, forget what is old; if nothing is left, that somebody did.
local function event_unheard(e, said)
  if e.unheard then return end
  e.unheard = true
  for ends in string.gmatch(said, ' %l+ (%d+)') do
    if tonumber(ends) > now then return end
  end
  local found, gone = range(e.order, '[\255\255\255', '+', EVENTS_FORGET), 0
  if not found[1] then return erase(e.counts, '\255') end
  for _, member in ipairs(found) do
    local at = (tonumber(string.match(member, '^%l+[. ](%d%d%d%d%d%d%d%d%d%d)', 4)) or 0) * 1000
    if math.abs(now - at) > EVENTS_OLD_MS then  -- what lies ahead is of before the clock was set back
      leave(e.order, member)
      gone = gone + 1
    end
  end
  if gone > 0 then write(e.counts, '\255\255', int((tonumber(read(e.counts, '\255\255') or '0') or 0) + gone)) end
end

-- Let it wait in a line, if somebody listens there. Nobody says so for longer than LISTENS_MS ahead, unless the clock was set back since.
local function event_enter(e, said, line, member)
  local ends = tonumber(string.match(said, ' ' .. line .. ' (%d+)')) or 0
  if ends <= now then return false end
  if ends > now + LISTENS_MS then
    write(e.counts, '\255', (string.gsub(read(e.counts, '\255'), '( ' .. line .. ') %d+', '%1 ' .. int(now + LISTENS_MS))))
  end
  local start, room = '\255\255\255' .. line, e['room ' .. line]
  if not room then
    scatter(e.order)
    room = EVENTS_MOST - redis.call('ZLEXCOUNT', e.order[KEY], '[' .. start .. ' ', '(' .. start .. '/')
  end
  e['room ' .. line] = room - 1
  if room <= 0 then
    write(e.counts, '\255\255', int((tonumber(read(e.counts, '\255\255') or '0') or 0) + 1))
    return true
  end
  enter(e.order, start .. '.' .. member, 0)
  return true
end

local function event_keep(e, said, job, word, ...)
  local own, all = string.find(said, ' ' .. word .. ' ', 1, true), string.find(said, ' all ', 1, true)
  if not (own or all) then return event_unheard(e, said) end
  local fields = {...}
  for i, field in ipairs(fields) do fields[i] = type(field) == 'number' and int(field) or field end
  e.events = (e.events or 0) + 1
  local text = job .. '\254' .. word .. ' ' .. cjson.encode(fields)
  local sum = 0
  for _, byte in ipairs({string.byte(text, 1, 80)}) do sum = (sum * 31 + byte) % 65521 end
  local member = string.format('%010d%06d%04d%08x', time[1], time[2], e.events, sum) .. text
  own, all = own and event_enter(e, said, word, member), all and event_enter(e, said, 'all', member)
  if not (own or all) then return event_unheard(e, said) end
  say(e.bell, message_event())
end

-- `e`: the parts `order` and `counts`, and the `bell`. It is called often, and seldom has anything to do: fields are given as they are.
local function event(e, ...)
  local said = read(e.counts, '\255')
  if said then return event_keep(e, said, ...) end
end
