-- _lib/events: what became of slots, tasks and jobs, kept for one instance that listens. Anybody's call may decide it: a command's, or that of a
-- client that has no hooks.
--
--   order   zset  behind the logs of _lib/ledger: \255\255\255 FROM ID JOB \254 WORD TEXT, of score 0. FROM, 15 digits: from when on it may be
--                 handed out, in ms; one that is taken comes again when its taker has died. ID: 20 digits, by which events stand in
--                 order, and 8 of a sum over it. JOB empty: of a task that was spawned. TEXT: a list of texts, as JSON
--   counts  hash  \255 -> " WORD UNTIL WORD UNTIL": for what somebody listens; \255\255 -> how many were dropped for want of room
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
-- Of a WORD for which nobody listens nothing is kept. What was kept for those who did goes when it is an hour old, here if they all have left.
-- needs: _lib/run _lib/messages

local EVENTS_MOST, EVENTS_OLD_MS, EVENTS_FORGET = 10000, 3600000, 100

-- Nobody listens for something. If nobody listens for anything any more, forget what is old; if nothing is left, that somebody did.
local function event_unheard(e, said)
  if e.unheard then return end
  e.unheard = true
  for ends in string.gmatch(said, ' %l+ (%d+)') do
    if tonumber(ends) > now then return end
  end
  local first, old = range(e.order, '[\255\255\255', '+', 1)[1], now - EVENTS_OLD_MS
  if not first then return erase(e.counts, '\255') end
  if (tonumber(string.sub(first, 4, 18)) or 0) >= old then return end
  local found = range(e.order, '[\255\255\255', '(\255\255\255' .. string.format('%015d', old), EVENTS_FORGET)
  for _, member in ipairs(found) do leave(e.order, member) end
  write(e.counts, '\255\255', int((tonumber(read(e.counts, '\255\255') or '0') or 0) + #found))
end

-- `e`: the parts `order` and `counts`, and the `bell`. It is called often, and seldom has anything to do: fields are given as they are.
local function event(e, job, word, ...)
  local said = read(e.counts, '\255')
  if not said then return end
  if (tonumber(string.match(said, ' ' .. word .. ' (%d+)')) or 0) <= now then return event_unheard(e, said) end
  if not e.room then
    scatter(e.order)
    e.room, e.events = EVENTS_MOST - redis.call('ZLEXCOUNT', e.order[KEY], '[\255\255\255', '+'), 0
  end
  if e.room <= 0 then return write(e.counts, '\255\255', int((tonumber(read(e.counts, '\255\255') or '0') or 0) + 1)) end
  e.room, e.events = e.room - 1, e.events + 1
  local fields = {...}
  for i, field in ipairs(fields) do fields[i] = type(field) == 'number' and int(field) or field end
  local text = job .. '\254' .. word .. ' ' .. cjson.encode(fields)
  local sum = 0
  for _, byte in ipairs({string.byte(text, 1, 80)}) do sum = (sum * 31 + byte) % 65521 end
  local id = string.format('%010d%06d%04d%08x', time[1], time[2], e.events, sum)
  enter(e.order, '\255\255\255' .. string.format('%015d', now) .. id .. text, 0)
  say(e.bell, message_event())
end
