"""The only speller of key names: every key of a store, by shard, and which shard a name belongs to."""

from __future__ import annotations

import re
from zlib import crc32

from lockbeat.errors import InvalidArgument
from lockbeat.values.checks import of_type

FORMAT = 2
"""What this version speaks: what the keys below hold, and what scripts do with it. Another number is another store."""

# Every key is `{NAMESPACE:SHARD}:NAME`; the braces are the hash tag that keeps a shard's keys in one Cluster slot.
# Their number does not grow with use, except where NAME holds a word in capitals, which has a TTL.
KEYS = {
    # the store
    "format": "string  the number of the format that the keys of this shard are in, see FORMAT",
    "shards": "string  how many shards the store has (shard 0 only)",
    "epoch": "string  when this shard was first written: a new one means that the store was emptied",
    "fence": "string  the last fence that was minted, and until when the keys of the locks live",
    "bell": "channel rung when there may be something to do",
    "durable": "string  PX; written before WAIT, which counts what its own connection has written",
    "reply:0": "hash    TTL; what calls were answered, for when they are repeated",
    "reply:1": "hash    the same, in turn",
    "reply:2": "hash    the same, in turn",
    # locks, see _lib/lock
    "lock": "hash    lock -> lease",
    "lock:live": "zset    lock by expiry",
    "lock:owned": "zset    owner and lock, in lexical order",
    "lock:queue": "zset    lock and waiter, in order of arrival",
    "lock:waiters": "hash    waiter -> what it waits with",
    # values behind a fence
    "fenced:NAME": "string  PX; what was last written under a name, and by which fence",
    # claims, see _lib/claim
    "claim": "hash    queue and key -> lease, while it is claimed",
    "claim:live": "zset    queue and key by expiry, while claimed",
    "claim:owned": "zset    owner, queue and key, in lexical order, while claimed",
    "claim:order": "zset    queue and key, in lexical order, while claimed and not found to have run out",
    "claim:past": "hash    queue and key -> how the attempt before ended, with its result or error",
    "claim:ended": "zset    queue and key by when to forget its past",
    "claim:stats": "hash    what happened to claims -> how often",
    # jobs and where they stand, see _lib/schedule
    "job": "hash    job -> its definition",
    "job:order": "zset    job, in lexical order",
    "job:slot": "hash    job -> its next slot",
    "job:due": "zset    job by when to look at it next",
    "job:open": "hash    job -> its unfinished task and the slots in line behind it, unless overlap is allow",
    "job:paused": "hash    job -> why no slot of it is fired, until when, and who said so",
    "job:changes": "hash    job -> who did what to it",
    "job:tag": "zset    tag and job, in lexical order; and of how many jobs the tags are in it",
    "job:origin": "zset    origin and job, in lexical order; and jobs that were removed, and left something behind",
    "job:applied": "zset    PX; origin by the number of the latest apply of its jobs",
    "job:counts": "hash    job -> how often what became of its slots, and what its ledger has forgotten; who listens for events",
    "version": "string  the versions of the programs that declare jobs, see _lib/version",
    # past slots that are fired one after the other, see _lib/backfill
    "backfill": "hash    job -> its backfill",
    "backfill:due": "zset    job by when to look at its backfill next",
    # days on which jobs don't fire, see _lib/calendar
    "calendar": "hash    calendar -> where its days come from",
    "calendar:days": "hash    calendar -> its days",
    # which slots are kept, see _lib/ledger
    "ledger:order": "zset    job and slot, in lexical order; behind all jobs what was entered when, and events",
    # tasks, see _lib/task
    "task": "hash    task id -> its record",
    "task:lease": "hash    task id -> lease",
    "task:live": "zset    task id by expiry",
    "task:owned": "zset    owner and task id, in lexical order",
    "task:ready": "zset    queue, order and task id: to be claimed",
    "task:delayed": "zset    queue, due time and task id: not yet to be claimed",
    "task:failure": "hash    task id -> its last failure: type, message, traceback",
    "task:params": "hash    task id -> params and headers",
    "task:result": "hash    task id -> what its function returned",
    "task:ended": "zset    task id by when to forget it",
    "task:dead": "zset    queue, end and task id, in lexical order",
    "task:until": "zset    task id by when it is cancelled",
    "task:awaited": "zset    task id and channel, in lexical order: whom to tell when it ends",
    "task:stats": "hash    what happened to tasks -> how often; those that were fired are not among the spawned",
    # instances
    "instance": "hash    owner -> what the instance said of itself",
    "instance:live": "zset    owner by when it is taken for dead",
}

_TAG = re.compile(r"[0-9a-f]{3}")
_ID = re.compile(r"[0-9a-f]+")
_NAMESPACE = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


class Keys:
    """Spells the keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        of_type("namespace", namespace, str, "a str")
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidArgument("namespace", f"{namespace!r} must be 1 to 64 letters, digits, or any of . _ : / -")
        self.namespace = namespace

    def key(self, shard: int, name: str, word: str = "") -> str:
        """The key `name` of `shard`; `word` takes the place of the one in capitals."""
        if word and name[-1].isupper():
            name = name[: name.rindex(":") + 1] + word
        return f"{{{self.namespace}:{shard}}}:{name}"

    def channel(self, name: str) -> str:
        """A pub/sub channel; under the same prefix as the keys, so that one ACL pattern covers both."""
        return f"{{{self.namespace}}}:{name}"


def shard_of(name: str, shards: int) -> int:
    """The shard that `name` lives in: the same in every process and every release."""
    return crc32(name.encode()) % shards if shards > 1 else 0


def queue_tag(queue: str) -> str:
    """What the ids of a queue's tasks begin with: by it they are found, in the one shard that keeps the queue's order."""
    return f"{crc32(queue.encode()) & 0xFFF:03x}"


def shard_of_task(task_id: str, shards: int) -> int:
    """The shard that a task lives in: that of a slot or of a triggered run with its job, one that was spawned with its queue."""
    if job := job_of_task(task_id):
        return shard_of(job_lock(job), shards)
    tag = task_id.partition("-")[0]
    return int(tag, 16) % shards if _TAG.fullmatch(tag) else shard_of(task_id, shards)


def slot_of_task(task_id: str) -> int | None:
    """The slot that a task is, in milliseconds; None: it was triggered or spawned."""
    _, at, slot = task_id.rpartition("@")
    return int(slot) if at and slot.removeprefix("-").isdecimal() else None


def job_of_task(task_id: str) -> str:
    """The job whose slot a task is, or that was triggered; empty: it was spawned."""
    if slot_of_task(task_id) is not None:
        return task_id.rpartition("@")[0]
    job, bang, rest = task_id.rpartition("!")
    return job if bang and _ID.fullmatch(rest) else ""


def job_lock(job: str) -> str:
    """The lock that a running job holds. A job, its slots, tasks and ledger live in the shard of this name."""
    return f"job:{job}"


def claim_place(queue: str, key: str) -> str:
    """What the shard of a claim is picked by; no two claims share it."""
    return f"claim:{len(queue)}:{queue}{key}"
