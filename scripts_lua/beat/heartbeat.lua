-- beat/heartbeat: say that this instance lives, and look whether the store was emptied.
--
-- KEYS[1] instance       hash    owner -> JSON
-- KEYS[2] instance:live  zset
-- KEYS[3] epoch          string
-- KEYS[4..7] of _lib/schedule
-- KEYS[8] version        string  see _lib/version
-- KEYS[9] format         string
-- KEYS[10] shards        string
-- KEYS[11] job:tag       zset    see _lib/tags
-- ARGV[1] owner          str
-- ARGV[2] info           json    empty: the instance leaves
-- ARGV[3] ttl_ms         int     taken for dead after that
-- ARGV[4] version        str     that it declares: "ID FIRST NUMBER BEFORE", FIRST as it was told before (0: never), NUMBER or -, BEFORE as
--                                other shards have said it; empty: none
--
-- Returns  {now_ms, epoch, odd, next_due_ms, first_ms, again, walk, before, format, shards, tags}  epoch 0: the store was emptied. odd: as beat/due has it.
--                   next_due_ms: when a job of this shard comes due; 0: never. first_ms: when its version was first declared. again: when
--                   this has changed, declare the jobs again. walk 1: jobs may have to retire, see job/retire. before: the versions of
--                   which its version has jobs, with commas between. format, shards: as store/open has them; -1: can't be read.
--                   tags 1: the index of tags does not know all jobs, see job/tags
-- Under OOM: runs.
-- include: _lib/schedule _lib/version _lib/tags

local owner, ttl = ARGV[1], tonumber(ARGV[3])
-- Of before the clock was set back: heard of until now, for all that is known.
for _, ghost in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], int(now + ttl + 60000), '+inf', 'LIMIT', 0, 100)) do
  if ARGV[2] ~= '' then redis.call('ZADD', KEYS[2], int(now + ttl), ghost) end
end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', int(now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[2], dead)
  redis.call('HDEL', KEYS[1], dead)
end
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[2], owner)
  redis.call('HDEL', KEYS[1], owner)
else
  redis.call('ZADD', KEYS[2], int(now + ttl), owner)
  redis.call('HSET', KEYS[1], owner, ARGV[2])
  redis.call('PEXPIRE', KEYS[1], 2 * ttl)
  redis.call('PEXPIRE', KEYS[2], 2 * ttl)
end
local versions = versions_read(KEYS[8])
local mine = ARGV[2] ~= '' and version_said(versions, ARGV[4], ttl) or nil
if mine then version_follows(versions, mine, string.match(ARGV[4], ' (%S*)$')) end
if next(versions.of) then
  versions_look(versions, ttl)
  versions_write(versions)
end
local s = schedule_of(KEYS[4], KEYS[5], KEYS[6], KEYS[7])
local epoch = tonumber(redis.call('GET', KEYS[3]) or '0') or 0
local due = tonumber(redis.call('ZRANGE', s.dues[KEY], 0, 0, 'WITHSCORES')[2] or 0)
local format, shards = tonumber(redis.call('GET', KEYS[9]) or '0') or -1, tonumber(redis.call('GET', KEYS[10]) or '0') or -1
local walk, before = versions_to_walk(versions) and 1 or 0, mine and versions_before(versions, mine) or ''
return {now, epoch, schedule_odd(s, epoch), due, mine and mine.first or 0, mine and mine.again or 0, walk, before, format, shards, tags_whole(KEYS[11], KEYS[4]) and 0 or 1}
