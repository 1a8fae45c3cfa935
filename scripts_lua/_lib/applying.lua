-- _lib/applying: jobs that are applied as a set: what they are, whether they can be, and what their origin has besides them.
-- needs: _lib/declare _lib/reply

local DAY_MS = 86400000

-- Each job of a list of seven words a job; and `jobs`: their names, `has`: the same by name.
local function apply_given(list)
  local words, given = cjson.decode(list), {jobs = {}, has = {}}
  for i = 1, #words, 7 do
    local at = #given + 1
    given[at] = {
      job = words[i], rev = words[i + 1], definition = words[i + 2], slot = tonumber(words[i + 3]), due = tonumber(words[i + 4]),
      keep = words[i + 5], limit = tonumber(words[i + 6]),
    }
    given.jobs[at], given.has[words[i]] = words[i], true
  end
  return given
end

-- Whether nothing has to be done of a job that the origin declares so.
local function apply_stands(s, of, rev, owned, origin)
  return rev == of.rev and owned == origin and read(s.slots, of.job) and read(s.order, of.job) and read(s.dues, of.job)
end

-- Of each job what will become of it, or why it can't be declared; then what is in its way, and true: one can't. A job without a definition
-- is as it was a moment ago; another may have changed it since, or it has lost something: that is TOO_LATE.
local function apply_codes(s, given, origin, expected, reads, take, dry)
  local codes, words, refused = {}, {}, false
  for at, of in ipairs(given) do
    local line = read(s.defs, of.job) or ''
    local rev = string.match(line, '^%S*')
    local code, owned = declare_refused(s, of.job, of.rev, origin, of.slot, reads, take)
    words[at] = owned or ''
    if not code and expected ~= '*' and expected ~= rev then code, words[at] = RESULT.STALE, rev end
    if not code and not dry and of.definition == '' and not apply_stands(s, of, rev, owned, origin) then code = RESULT.TOO_LATE end
    if code and not (dry and code == RESULT.TOO_LATE) then
      refused = true
    elseif line == '' then
      code = RESULT.NEW
    else
      code = (rev ~= of.rev or (owned and owned ~= origin)) and RESULT.CHANGED or RESULT.NO
    end
    codes[at] = code
  end
  return codes, words, refused
end

-- What the origin has besides these jobs, of those behind `after` up to `upto`, at most `most`; names that are its own no more; how far it
-- has looked, and whether there are more.
local function apply_surplus(s, owners, given, origin, most, after, upto)
  local gone, strange, names, cursor = {}, {}, {}, ''
  if most == 0 then return gone, strange, cursor, false end
  local low = after == '' and '[' .. origin .. '\255' or '(' .. origin .. '\255' .. after
  local high = upto == '' and '(' .. origin .. '\255\255' or '[' .. origin .. '\255' .. upto
  for at, member in ipairs(range(owners, low, high, #given + most + 1)) do names[at] = string.sub(member, #origin + 2) end
  gather(s.defs, names)
  for _, job in ipairs(names) do
    if not given.has[job] then
      if #gone + #strange == most then return gone, strange, cursor, true end
      local found = origin_of(read(s.defs, job) or '') == origin and gone or strange
      found[#found + 1], cursor = job, job
    end
  end
  return gone, strange, cursor, false
end

-- The answer as text, for when the call is repeated; and as it was.
local function apply_answer(kind, number, codes, gone, cursor)
  local head = int(kind) .. ' ' .. int(number) .. ' ' .. table.concat(codes, ' ')
  return table.concat({head, cursor, table.concat(gone, '\255'), ''}, '\255')
end

local function apply_answered(said)
  local kind, number, codes, cursor, words = string.match(said, '^(%S+) (%S+) ([^\255]*)\255([^\255]*)\255(.*)$')
  local out = {tonumber(kind), tonumber(number), now, {}, {}, cursor}
  for code in string.gmatch(codes, '%S+') do out[4][#out[4] + 1] = tonumber(code) end
  for word in string.gmatch(words, '([^\255]+)\255') do out[5][#out[5] + 1] = word end
  return out
end
