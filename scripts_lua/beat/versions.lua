-- beat/versions: the versions of the programs that declare jobs.
--
-- KEYS[1] version  string  see _lib/version
-- ARGV[1] version  str     "ID 0 NUMBER" of one to compare with them, as `beat/heartbeat` takes it; empty: none
--
-- Returns  {now_ms, *versions}  versions: each {id, number, until_ms, retires_ms, after, newer}; number -: it has none; until_ms: as far as
--                    is known, an instance that declares it lives so long; retires_ms: when its jobs retire that no other has, if a living
--                    version has others of them; after: the versions that have taken over jobs of it, or -; newer 1: than the one to compare
-- include: _lib/version

local all, out = versions_read(KEYS[1]), {now}
local listed = {}
for _, one in pairs(all.of) do listed[#listed + 1] = one end
local mine = version_said(all, ARGV[1])
for _, one in ipairs(listed) do
  out[#out + 1] = {one.id, one.number, one.till, one.till + RETIRE_MS, one.after, mine and one ~= mine and version_above(one, mine) and 1 or 0}
end
return out
