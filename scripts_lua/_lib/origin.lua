-- _lib/origin: who declared a job: "code", "api" or a word of whoever did.
--
--   owners  zset  ORIGIN \255 JOB, all of score 0: the jobs of each origin but code, in lexical order; and \255 JOB: one that was removed
--                 and has left something behind, see job/forget
-- The origin stands in the definition, from which no loss of keys parts it: a member that the definition does not bear out is none.
-- needs: _lib/run

-- Of "REV JSON", or of the JSON alone; nil: it names none, as a version wrote it that knew of no origins. Behind `"needs"` at the very
-- beginning, so that no word of a description or of params is taken for it.
local function origin_of(definition)
  local at = string.find(definition, '{', 1, true)
  return at and (string.match(definition, '^{"origin":"([^"]*)"', at) or string.match(definition, '^{"needs":%d+,"origin":"([^"]*)"', at))
end

local function origin_member(origin, job)
  return origin and origin ~= 'code' and origin .. '\255' .. job or nil
end

-- What was declared by `was` is declared by `origin` from now on; either may be nil.
local function origin_passes(owners, job, was, origin)
  local before, after = origin_member(was, job), origin_member(origin, job)
  if before and before ~= after then leave(owners, before) end
  if after then enter(owners, after, 0) end
end
