-- job/list: a page of the names of jobs, in order: of all, or of those that may be what is asked for.
--
-- KEYS[1] job:order     zset
-- KEYS[2] job           hash  job -> "REV JSON"
-- KEYS[3] job:slot      hash  job -> "SLOT DUE REV RULES", see _lib/schedule
-- KEYS[4] job:open      hash
-- KEYS[5] job:counts    hash  see _lib/counts
-- KEYS[6] ledger:order  zset  see _lib/ledger
-- KEYS[7] task          hash  see _lib/record
-- KEYS[8] job:origin    zset  see _lib/origin
-- KEYS[9] job:tag       zset  see _lib/tags
-- ARGV[1] after         str   the cursor of the page before; empty: the first page
-- ARGV[2] limit         int
-- ARGV[3] texts         list  what the definition has to hold: an origin, as JSON has it
-- ARGV[4] state         str   scheduled, paused, ended, by_hand, retired, open or failing; empty: any
-- ARGV[5] origin        str   find them by the index of this origin; empty: by going through all jobs
-- ARGV[6] tag           str   as JSON has it: find them by the index of tags, if it knows all jobs; empty: whatever they have
--
-- Returns  {cursor, *jobs}  an empty cursor: this was the last page. There may be fewer than `limit`: a run looks at so many only
--
-- A definition may hold a text elsewhere than where it counts, and an index what was true before: the caller looks again. No index finds a
-- state, for it would cost each slot.
-- include: _lib/stands _lib/tags

local LOOKS = 2000
local AS_MANY = 20  -- a job that may be failing costs as much as so many others
local limit, texts, state = tonumber(ARGV[2]), cjson.decode(ARGV[3]), ARGV[4]
local defs, slots, open, counts = page(KEYS[2]), page(KEYS[3]), page(KEYS[4]), page(KEYS[5])
local tag = ARGV[6] ~= '' and tags_whole(KEYS[9], KEYS[2]) and ARGV[6] or ''
if tag ~= ARGV[6] then texts[#texts + 1] = '"' .. ARGV[6] .. '"' end
local word = tag ~= '' and tag or ARGV[5]
local before = word ~= '' and word .. '\255' or ''  -- what stands before a name in the index
local by = tag ~= '' and KEYS[9] or word ~= '' and KEYS[8] or KEYS[1]

local function after(name, most)
  local low = name ~= '' and '(' .. before .. name or before ~= '' and '[' .. before or '-'
  local names = redis.call('ZRANGEBYLEX', by, low, before ~= '' and '(' .. before .. '\255' or '+', 'LIMIT', 0, most)
  if before ~= '' then
    for i, member in ipairs(names) do names[i] = string.sub(member, #before + 1) end
  end
  return names
end

if #texts == 0 and state == '' then
  local names = after(ARGV[1], limit)
  return {#names == limit and names[limit] or '', unpack(names)}
end

local function holds(job)
  if #texts == 0 then return true end
  local definition = read(defs, job) or ''
  for _, text in ipairs(texts) do
    if not string.find(definition, text, 1, true) then return false end
  end
  return true
end

local function is(job)
  if state == '' then return true end
  if state == 'failing' then return stands_uneasy(read(counts, job)) and stands_failing(KEYS[6], KEYS[7], job) end
  if state == 'open' then return read(open, job) end
  return stands(read(slots, job)) == state
end

local asked = state == 'failing' and counts or state == 'open' and open or state ~= '' and slots
local out, looks, last, most = {''}, LOOKS, ARGV[1], limit
while true do
  most = math.min(most, looks)
  local names = after(last, most)
  if #texts > 0 then gather(defs, names) end
  if asked then gather(asked, names) end
  for _, job in ipairs(names) do
    looks = looks - (state == 'failing' and stands_uneasy(read(counts, job)) and AS_MANY or 1)
    last = job
    if holds(job) and is(job) then out[#out + 1] = job end
    if #out > limit or looks <= 0 then
      out[1] = last
      return out
    end
  end
  if #names < most then return out end
  most = 10 * most  -- few are what is asked for
end
