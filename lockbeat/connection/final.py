"""Which errors of connecting no later try will mend: they are told at once."""

from __future__ import annotations

from redis.exceptions import AuthenticationError, InvalidResponse, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError

DENIALS = (AuthenticationError, NoPermissionError)
ALONE, NO_SENTINEL = "it is of no Cluster; write redis://HOST:PORT", "it is none, write redis://HOST:PORT"
"""What is said of a server that the URL takes for a node of a Cluster, or for a sentinel."""
_WORDS = ("WRONGPASS", "NOAUTH", "NOPERM", "DENIED")
_SAID = (
    "invalid username",
    "Authentication required",
    "DB index is out of range",  # no such database
    "invalid DB index",
    "SELECT is not allowed in cluster mode",
    "Protocol error, got",
    "WRONG_VERSION_NUMBER",  # no TLS
    ALONE,
    NO_SENTINEL,
)


class SeveralAway(RedisConnectionError):
    """None of several servers could help. Some may deny us, while the others are away and come back."""


def is_final(problem: Exception) -> bool:
    """Whether it is credentials or rights, or that the server is not what the URL says it is."""
    text = str(problem)
    return isinstance(problem, (*DENIALS, InvalidResponse)) or (
        not isinstance(problem, SeveralAway) and (text.split(" ", 1)[0] in _WORDS or any(said in text for said in _SAID))
    )
