"""Why something became of a slot or a task: the CODE that the store keeps, and the sentence that people read.

`scripts_lua/_lib/reasons.lua` has the same codes and says what each means. Whoever decides by a reason compares codes; sentences
are made here alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

OVERLAP: Final = "overlap"
OVERLAP_UNREAD: Final = "overlap_unread"
LOCK_HELD: Final = "lock_held"
LOCK_UNREAD: Final = "lock_unread"
NOT_FIRED: Final = "not_fired"
LATE: Final = "late"
NOT_BEGUN: Final = "not_begun"
NOT_BEGUN_WITHIN: Final = "not_begun_within"
TOOK_PLACE: Final = "took_place"
FIRED: Final = "fired"
TRIGGER_CHANGED: Final = "trigger_changed"
WENT_BACK: Final = "went_back"
EMPTIED: Final = "emptied"
SLOT_LOST: Final = "slot_lost"
CLOCK_SET_BACK: Final = "clock_set_back"
RULES_CHANGED: Final = "rules_changed"
UNREADABLE: Final = "unreadable"
EXPIRED: Final = "expired"
RELEASED: Final = "released"
LEASE_DELETED: Final = "lease_deleted"
SHUTDOWN: Final = "shutdown"
CANCELLED: Final = "cancelled"
MAX_DELAY: Final = "max_delay"
MAX_DURATION: Final = "max_duration"
RETRY_TOO_LATE: Final = "retry_too_late"
JOB_DELETED: Final = "job_deleted"

SENTENCES: dict[str, str] = {
    OVERLAP: "overlap: {task} had not ended",
    OVERLAP_UNREAD: "overlap: what is known of {task} can't be read",
    LOCK_HELD: "overlap: the job's lock is held by {owner}",
    LOCK_UNREAD: "overlap: the job's lock can't be read",
    NOT_FIRED: "no instance fired it before the next was due",
    LATE: "more than {ms} late, and catch-up is skip",
    NOT_BEGUN: "no worker began it before the next was due",
    NOT_BEGUN_WITHIN: "no worker began it within {ms}",
    TOOK_PLACE: "no worker began those before it",
    FIRED: "",
    TRIGGER_CHANGED: "the trigger was changed before it was fired",
    WENT_BACK: "unknown: the store went back to an earlier state, and it may have run",
    EMPTIED: "unknown: the store was emptied in this time",
    SLOT_LOST: "unknown: its next slot was lost from the store",
    CLOCK_SET_BACK: "the server's clock was set back: its next slot stood at {slot}",
    RULES_CHANGED: "{slot} is no slot any more: the rules of its time zone changed (tzdata {versions})",
    UNREADABLE: "what the ledger has of it can't be read",
    EXPIRED: "its lease was not renewed in time: the instance died, was frozen or cut off, one C call"
    " held its interpreter, or it ran on after its timeout",
    RELEASED: "all leases of its owner were released",
    LEASE_DELETED: "its lease was deleted",
    SHUTDOWN: "cut short: the instance was shut down",
    CANCELLED: "it was cancelled",
    MAX_DELAY: "max_delay: nobody began it in time",
    MAX_DURATION: "max_duration: it had not ended in time",
    RETRY_TOO_LATE: "max_duration: a retry would come too late",
    JOB_DELETED: "its job was deleted",
}


def sentence(
    code: str, detail: str = "", *, task: Callable[[str], str] = str, ms: Callable[[int], str] = lambda ms: f"{ms} ms"
) -> str:
    """The sentence of a reason; empty: it needs none. `task` and `ms` spell a task's id and a duration as the reader likes them.

    code: one of this page's. Another, which a newer instance wrote, is given back with its detail.
    """
    if code not in SENTENCES:
        return f"{code} {detail}".strip()
    slot, _, rules = detail.partition(" ")
    then, _, now = rules.partition(" ")
    return SENTENCES[code].format_map(
        {
            "task": task(detail),
            "owner": detail,
            "ms": ms(int(detail)) if detail.isdecimal() else detail,
            "slot": slot,
            "versions": f"{then} then, {now} now" if then != now else f"{now} now",
        }
    )
