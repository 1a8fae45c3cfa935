"""Claims as values: what is acquired, refused and looked at; and how what callers give is checked."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any, Literal

from lockbeat.store import results
from lockbeat.values.checks import MOST_FENCE, of_type, whole
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump

MOST_LISTED = 10_000
MOST_EXPIRED = 1_000
MOST_ERROR = 4_000
"""Characters of an error's text that are kept."""

REFUSALS = {
    results.UNKNOWN: "unknown",
    results.EXPIRED: "expired",
    results.FINISHED: "finished",
    results.ANOTHERS: "wrong owner",
    results.STALE: "stale token",
}
"""Why a claim is not the caller's to change, by what the scripts answer."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A unit of work that an owner is at, for a limited time. Always true, where `Busy` and `Done` are false."""

    key: str
    queue: str
    owner: str
    fence: int
    """Grows with each new claim of the key; hand it to whatever the work writes to."""
    attempt: int
    """1 for new work; one more after a failure, and after an attempt that ran out."""
    expires_at: float
    """When it ends unless renewed: seconds since the Unix epoch, by the server's clock; as it was when this was answered."""
    outcome: Literal["acquired", "took_over", "passthrough"]
    """took_over: `previous_owner` had it, and let it run out. passthrough: of a Gate with nothing behind it."""
    previous_owner: str | None = None
    last_error: Any = None
    """How the last attempt failed that did, if one has: the words of an exception, or the text or JSON value given to `fail`."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody is at it, be it the same owner. False."""

    key: str
    queue: str
    owner: str
    expires_at: float
    """Until when at least nobody else gets it, unless it is finished or given back: seconds since the epoch."""

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Done:
    """It was completed, and is remembered as such: no need to do it again. False."""

    key: str
    queue: str
    owner: str
    """Who completed it."""
    result: Any
    completed_at: float
    until: float
    """Until when that is remembered: seconds since the epoch, as all these times, by the server's clock."""

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class ClaimStats:
    """What happened to the claims of a store since it was made.

    A call that was repeated because its reply was lost counts once; one that was refused counts each time.

    attempts = acquired + contended + took_over; and each claim ends in one way:
    acquired + took_over = completed + failed + released + expired + those still claimed, or run out and waiting for one of these.
    It falls short of those that had run out when a store is left alone for 7 days and an hour: it drops them uncounted.
    """

    attempts: int
    """Calls of acquire."""
    acquired: int
    contended: int
    """Answered Busy or Done."""
    took_over: int
    completed: int
    failed: int
    released: int
    """By release, release_all, or because the acquire was cancelled."""
    renewed: int
    expired: int
    """Ran out, and were then taken over, swept by cleanup, or forgotten after 7 days."""


def check_place(key: object, queue: object) -> None:
    check_name("key", key)
    check_name("queue", queue)


def check_claim(claim: Claim) -> Claim:
    of_type("claim", claim, Claim, "a Claim, as acquire returns it")
    check_place(claim.key, claim.queue)
    check_name("owner", claim.owner)
    whole("fence", claim.fence, 1, MOST_FENCE)
    return claim


def error_json(error: object) -> str:
    """An error as JSON. Text that is too long is cut, and what UTF-8 can't carry is escaped; another value is kept as it is."""
    if isinstance(error, BaseException):
        error = "".join(traceback.format_exception_only(error)).rstrip()
    if isinstance(error, str):
        error = error[:MOST_ERROR].encode(errors="backslashreplace").decode()
    return dump("error", error)
