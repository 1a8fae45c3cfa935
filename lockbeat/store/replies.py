"""What a server answers, as a value or an error of ours."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

import hiredis
from redis.exceptions import InvalidResponse, RedisError

from lockbeat.errors import LockbeatError, ScriptError, StoreError, StoreUnavailable, Unreadable

log = logging.getLogger("lockbeat")

# The server refused before it did anything, and another server, or a later try, may not.
_AWAY = (
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "NOREPLICAS",
    "BUSY",
    "UNBLOCKED",
    "NOSCRIPT",
)

NO_STORE = ("is not allowed from script", "without any input keys", "command called from script", "unknown command")
"""What a server says that does not run the scripts of anybody: it can't be a store."""
DENIED = ("ACL failure in script", "user executing the script can't")
"""What a server says to a script of what its user may not do: to Redis 7.0 others words are usual than to Valkey."""

_UNKNOWN = re.compile(r"unknown command '(\w+)'.*", re.DOTALL)
_UNREADABLE = b"LOCKBEAT_UNREADABLE "


def _lacks(said: re.Match[str]) -> str:
    """Without the whole script, which the server repeats."""
    asks = "; a sentinel's URL is redis+sentinel://HOST:PORT/SERVICE" if said[1].startswith("EVAL") else ""
    return f"unknown command '{said[1]}': this server lacks what every store needs{asks}"


def readable(reply: Any) -> Any:
    """A script's reply; or, if it names what could not be read, the error that says so."""
    if type(reply) is not bytes or not reply.startswith(_UNREADABLE):
        return reply
    key, _, field = reply.removeprefix(_UNREADABLE).partition(b"\xff")
    return Unreadable(key.decode(errors="backslashreplace"), field.decode(errors="backslashreplace"))


def sifted(rows: Iterable[Any]) -> list[Any]:
    """The rows that could be read. The others are left as they are; a line in the log names each."""
    found = []
    for row in map(readable, rows):
        if isinstance(row, Unreadable):
            log.error("left out: %s", row)
        else:
            found.append(row)
    return found


def error_of(problem: Exception) -> LockbeatError:
    """The one place where what a server or redis-py says becomes an error of ours."""
    text = str(problem)
    word = text.split(" ", 1)[0]
    if word == "LOCKBEAT_UNREADABLE":
        return Unreadable(text.split(" ")[1])
    if word == "LOCKBEAT_CLOCK":
        return StoreError(text.removeprefix(word).lstrip())
    if word in ("OOM", "MISCONF") or any(words in text for words in (*NO_STORE, *DENIED)):
        return StoreError(_UNKNOWN.sub(_lacks, text))
    if isinstance(problem, InvalidResponse) or "Protocol error, got" in text:
        return StoreError(f"what answers there does not speak the protocol of Redis: {text}")
    if word in _AWAY or not isinstance(problem, (hiredis.ReplyError, RedisError)):
        return StoreUnavailable(text or type(problem).__name__)
    if word in ("ERR", "WRONGTYPE") or word.startswith("LOCKBEAT_") or "script:" in text:
        return ScriptError(text)
    return StoreError(text)
