-- _lib/task: the keys of tasks.
--
-- KEYS[1]  task          hash    ID -> a task's record, see _lib/record; of a slot it is the slot's line in the ledger as well
-- KEYS[2]  task:ready    zset    QUEUE \255 PRIORITY DUE SEQ ID: claimable, first the most urgent, then the longest due; see _lib/places
-- KEYS[3]  task:delayed  zset    QUEUE \255 DUE PRIORITY SEQ ID: not before DUE
-- KEYS[4]  task:lease    hash    an attempt is leased, see _lib/attempt and _lib/lease
-- KEYS[5]  task:live     zset
-- KEYS[6]  task:owned    zset
-- KEYS[7]  job:open      hash    JOB -> ID of its unfinished task, and the SLOTs in line behind it, see _lib/line; none under overlap allow
-- KEYS[8]  ledger:order  zset    see _lib/ledger
-- KEYS[9]  fence         string  the last fence of this shard
-- KEYS[10] lock          hash    the locks: an attempt of a job is leased there, as `job:NAME`, unless its overlap is allow
-- KEYS[11] lock:live     zset
-- KEYS[12] lock:owned    zset
-- KEYS[13] lock:queue    zset    who waits, see _lib/waiting
-- KEYS[14] lock:waiters  hash
-- KEYS[15] bell          channel  workers and schedulers listen, see _lib/messages
-- KEYS[16] task:params   hash    ID -> JSON: params and headers, which no script reads
-- KEYS[17] task:result   hash    ID -> JSON: what its function returned, which no script reads
-- KEYS[18] task:failure  hash    ID -> JSON: type, message and traceback of its last failure, which no script reads
-- KEYS[19] task:ended    zset    ID by when to forget it; of a dead slot: by when it can be retried no more
-- KEYS[20] task:dead     zset    QUEUE \255 ENDED ID
-- KEYS[21] task:until    zset    ID by UNTIL
-- KEYS[22] task:stats    hash    what happened -> how often
-- KEYS[23] task:awaited  zset    ID \255 CHANNEL: whom to tell when it ends
-- KEYS[24] job:counts    hash    see _lib/counts
-- KEYS[25] reply:0       hash    see _lib/reply
-- KEYS[26] reply:1       hash
-- KEYS[27] reply:2       hash
-- needs: _lib/clock _lib/fence _lib/run _lib/lease _lib/leases _lib/reply

local q = {
  tasks = page(KEYS[1]), ready = index(KEYS[2]), delayed = index(KEYS[3]),
  leases = lease_table(KEYS[4], KEYS[5], KEYS[6]),
  open = page(KEYS[7]), order = index(KEYS[8]), fence = KEYS[9],
  locks = lease_table(KEYS[10], KEYS[11], KEYS[12]), waiting = {queue = KEYS[13], waiters = KEYS[14]},
  bell = KEYS[15],
  params = page(KEYS[16]), results = page(KEYS[17]), failures = page(KEYS[18]),
  ended = index(KEYS[19]), dead = index(KEYS[20]), untils = index(KEYS[21]), stats = count(KEYS[22]), awaited = index(KEYS[23]),
  counts = page(KEYS[24]),
  replies = join(reply_table(KEYS[25], KEYS[26], KEYS[27]), reply_close),
}
