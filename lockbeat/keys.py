"""The only speller of key names: every key of a store, by shard, and which shard a name belongs to."""

from __future__ import annotations

import re
from zlib import crc32

from lockbeat.errors import InvalidArgument, InvalidType

# Every key is `{NAMESPACE:SHARD}:NAME`; the braces are the hash tag that keeps a shard's keys in one Cluster slot.
# Their number does not grow with use, except where NAME holds a word in capitals, which has a TTL.
KEYS = {
    "shards": "string  how many shards the store has (shard 0 only)",
    "epoch": "string  when this shard was first written: a new one means that the store was emptied",
    "fence": "string  the last fence that was minted, and until when the keys of the locks live",
    "bell": "channel rung when there may be something to do",
    "reply:CALL": "string  PX; what a call answered, for when it is repeated",
    "lock": "hash    lock -> lease",
    "lock:owned": "zset    owner and lock, in lexical order",
    "lock:queue": "zset    lock and waiter, in order of arrival",
    "lock:waiters": "hash    waiter -> what it waits with",
    "job": "hash    job -> its definition",
    "job:order": "zset    job, in lexical order",
    "job:slot": "hash    job -> its next slot",
    "job:due": "zset    job by when to look at it next",
    "job:open": "hash    job -> its unfinished task, under overlap skip",
    "ledger": "hash    task id -> what became of the slot",
    "ledger:order": "zset    job and slot, in lexical order",
    "task": "hash    task id -> its record",
    "task:lease": "hash    task id -> lease",
    "task:live": "zset    task id by expiry",
    "task:owned": "zset    owner and task id, in lexical order",
    "task:ready": "zset    queue, order and task id: to be claimed",
    "task:delayed": "zset    queue, due time and task id: not yet to be claimed",
    "instance": "hash    owner -> what the instance said of itself",
    "instance:live": "zset    owner by when it is taken for dead",
}

MAX_NAME_BYTES = 1024
_NAMESPACE = re.compile(r"[A-Za-z0-9._:/-]{1,64}")


class Keys:
    """Spells the keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        if not isinstance(namespace, str):
            raise InvalidType("namespace", f"must be a str, not {type(namespace).__name__}")
        if not _NAMESPACE.fullmatch(namespace):
            raise InvalidArgument("namespace", f"{namespace!r} must be 1 to 64 letters, digits, or any of . _ : / -")
        self.namespace = namespace

    def key(self, shard: int, name: str) -> str:
        """The key `name` of `shard`."""
        return f"{{{self.namespace}:{shard}}}:{name}"

    def channel(self, name: str) -> str:
        """A pub/sub channel; under the same prefix as the keys, so that one ACL pattern covers both."""
        return f"{{{self.namespace}}}:{name}"


def shard_of(name: str, shards: int) -> int:
    """The shard that `name` lives in: the same in every process and every release."""
    return crc32(name.encode()) % shards if shards > 1 else 0


def job_lock(job: str) -> str:
    """The lock that a running job holds. A job, its slots, tasks and ledger live in the shard of this name."""
    return f"job:{job}"


def check_name(argument: str, value: object) -> str:
    """A name as the store takes it: a non-empty str of at most 1,024 bytes in UTF-8, anything allowed in it.

    Raises InvalidArgument (InvalidType for other than str), naming `argument`.
    """
    if not isinstance(value, str):
        raise InvalidType(argument, f"must be a str, not {type(value).__name__}")
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidArgument(argument, "must be text that UTF-8 can carry, without lone surrogates") from None
    if not 0 < size <= MAX_NAME_BYTES:
        raise InvalidArgument(
            argument,
            "must not be empty" if size == 0 else f"must be at most {MAX_NAME_BYTES} bytes, not {size}",
        )
    return value
