-- _lib/part: what a script knows of a hash (a page) or a sorted set (an index). See _lib/run.
--
--   part[id]  what stands there under an id, which is text; of an index the score. false: nothing; nil: not known yet
--   part[n]   what the part is: its key; which ids have changed, as a list (false: none; nil: its own `close` knows); and whether it is an
--             index. One table a part, as most runs read few of those that they have.

local KEY, CHANGED, SCORED = 1, 2, 3

local function page(key) return {key, false} end
local function index(key) return {key, false, true} end
