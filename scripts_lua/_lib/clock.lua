-- _lib/clock: the server's time, by which everything is judged; and what a script does about what it can't read.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- From 2^53 us on a fence can't be told from its neighbours, and a counter that stands there is unreadable for good, also
-- once the clock is right again. So such a clock is refused before anything is written.
if tonumber(time[1]) >= 9007199254 then return redis.error_reply('LOCKBEAT_CLOCK the server\'s clock is past the year 2255') end
local SET_BACK_MS = 1000  -- what lies further ahead than it can was written before the server's clock was set back
local ASIDE_MS = 60000  -- when a loop looks again at what it could not read
local REPEAT_MS = 20000  -- a call is repeated for at most two timeouts of 5 s, and waits one more

-- tostring() writes 1e+15 for a fence.
local function int(number)
  return string.format('%d', number)
end

-- What stands under our keys and can't be read is an error that names it, never "absent": it may be somebody's lease. `field` nil: a string.
local function unread(key, field)
  return 'LOCKBEAT_UNREADABLE ' .. key .. '\255' .. (field or '')
end

local function unreadable(key, field)
  error(unread(key, field), 0)
end

-- What `call` returns, the second value as the third; or nil, and which entry it could not read.
local function attempt_bare(call, ...)
  local ok, said, more = pcall(call, ...)
  if ok then return said, nil, more end
  local word = type(said) == 'string' and string.match(said, '^(%u[%u_]*) ')
  if word == 'LOCKBEAT_UNREADABLE' then return nil, said end
  error(word and {err = said} or said, 0)  -- of the server's: its pcall makes text of it, which would be taken for a script's own
end

local attempt = attempt_bare  -- a run undoes as well, see _lib/run

-- The reply of a script that is called alone.
local function answer(call)
  local said, problem = attempt(call)
  return problem or said
end

-- The replies to the groups of ARGV. The one that meets what can't be read is answered so, and its neighbours are not.
local function each(width, call)
  local out = {}
  for i = 1, #ARGV, width do
    local said, problem = attempt(call, i)
    out[#out + 1] = problem or said
  end
  return out
end
