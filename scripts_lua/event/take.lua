-- event/take: hand out events that nobody is telling, and forget those that the caller has told; those of a job in order, to one at a time.
--
-- KEYS[1] ledger:order  zset  see _lib/events
-- KEYS[2] job:counts    hash
-- ARGV[1] lines     list  "LINE LIMIT": the caller listens there, and takes so many at most
-- ARGV[2] told      list  "LINE ID" of events that it has told
-- ARGV[3] keeps     list  of those that it is still telling; with a ~ behind it: for so long that the job's others are not to wait
-- ARGV[4] back      list  "LINE ID FROM", as it was handed out: of those that it gives back untold
-- ARGV[5] lease_ms  int   they are handed out again after this time, unless they are told or kept
--
-- Returns  {now_ms, next_ms, dropped, *events}  next_ms: when there may be more, 0: when it is told so. dropped: how many were, since somebody asked.
--          events: LINE ID FROM JOB \254 WORD TEXT
--
-- One that dies with events does not lose them: they come again. So the second may tell what the first had told, never two at a time.
-- What is in hand is found by its ID alone: who keeps it may not know until when it has it, for a reply was lost.
-- A line from which the caller takes nothing keeps no job's events of another waiting: its hook may hang.
-- include: _lib/handing

local lease, lines, out = tonumber(ARGV[5]), {}, {}
local h = {order = index(KEYS[1]), counts = page(KEYS[2]), room = {}, limit = {}, asked = {}, waiting = {}, hooks = {}, all = {}, next_ms = 0}
for _, said in ipairs(cjson.decode(ARGV[1])) do
  local line, limit = string.match(said, '^(%l+) (%d+)$')
  lines[#lines + 1], h.limit[line] = line, tonumber(limit)
end
for _, event in ipairs(cjson.decode(ARGV[2])) do h.asked[event] = 'told' end
for _, event in ipairs(cjson.decode(ARGV[3])) do h.asked[(string.gsub(event, '~$', ''))] = string.sub(event, -1) == '~' and 'slow' or 'keep' end
for _, event in ipairs(cjson.decode(ARGV[4])) do h.asked[event] = 'back' end

hand_listen(h, lines)
local dropped, old = read(h.counts, '\255\255'), string.format('%010d', math.floor((now - EVENTS_OLD_MS) / 1000))
if dropped then erase(h.counts, '\255\255') end
h.dropped = tonumber(dropped or '0') or 0
for _, line in ipairs(lines) do
  h.room[line] = math.min(h.limit[line], HAND_MOST - hand_held(h, line, lease, old))
  hand_waiting(h, line, old)
end
table.sort(h.waiting, function(a, b) return a.id < b.id end)
for _, one in ipairs(h.waiting) do
  if hand_may(h, one) then
    leave(h.order, one.member)
    hand_out(h, one.line, one.id, one.job, one.text, now + lease, '-')
    out[#out + 1] = one.line .. ' ' .. one.id .. ' ' .. string.format('%015d', now + lease) .. ' ' .. one.job .. one.text
    h.more = h.more or h.room[one.line] == 0
  end
end
if out[1] and h.next_ms == 0 then h.next_ms = now + lease end
if h.again or h.more and out[1] then h.next_ms = now end
return {now, h.next_ms, h.dropped, unpack(out)}
