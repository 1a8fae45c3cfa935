-- _lib/tags: which jobs have a tag.
--
--   tags  zset  TAG \255 JOB, TAG as JSON has it, all of score 0; and \255, whose score is how many jobs the index knows, those without tags as well.
--               Below 0: an instance makes the index anew until then, in ms
-- Where there are other than so many jobs some of it was lost, or an older version has declared jobs. Nobody goes by it then, until an
-- instance has made it anew (job/tags).
-- needs: _lib/run

local SUM = '\255'

-- Whether the index knows all jobs.
local function tags_whole(key, defs)
  return tonumber(redis.call('ZSCORE', key, SUM) or 0) == redis.call('HLEN', defs)
end

-- The tags in a definition, as JSON has them. Few have any, and a search for a text that begins with " stops at each of them.
local function tags_of(definition)
  local found, _, at = {}, nil, nil
  if string.find(definition, '["', 1, true) then _, at = string.find(definition, '"tags":["', 1, true) end
  while at do
    local from, quote, escaped = at + 1, at, nil
    repeat
      quote = string.find(definition, '["\\]', quote + 1)
      escaped = quote and string.byte(definition, quote) == 92
      if escaped then quote = quote + 1 end
    until not escaped
    if not quote then return found end
    found[#found + 1] = string.sub(definition, from, quote - 1)
    at = string.sub(definition, quote + 1, quote + 2) == ',"' and quote + 2 or nil
  end
  return found
end

-- So many jobs more, or less. Where nobody knows how many it has, nobody is told.
local function tags_close(grown)
  if grown.by == 0 then return end
  local known = read(grown.tags, SUM) or redis.call('HLEN', grown.defs) == 0 and 0
  if not known or known < 0 then return end
  if known + grown.by == 0 then leave(grown.tags, SUM) else enter(grown.tags, SUM, known + grown.by) end
end

local function tags_index(key, defs)
  local tags = index(key)
  tags.grown = join({by = 0, tags = tags, defs = defs}, tags_close)
  return tags
end

-- A job that was defined so is defined as `line` from now on; nil: there was none, or is none.
local function tags_pass(tags, job, was, line)
  for _, tag in ipairs(was and tags_of(was) or {}) do leave(tags, tag .. '\255' .. job) end
  for _, tag in ipairs(line and tags_of(line) or {}) do enter(tags, tag .. '\255' .. job, 0) end
  if not was or not line then write(tags.grown, 'by', tags.grown.by + (line and 1 or 0) - (was and 1 or 0)) end
end
