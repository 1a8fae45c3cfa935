"""Why something became of a slot or a task: the CODE that the store keeps, and the sentences that people read.

`scripts_lua/_lib/reasons.lua` has the same codes and says what each means. Whoever decides by a reason compares codes; sentences
are made here alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SENTENCES: dict[str, str] = {
    "overlap": "overlap: {task} had not ended",
    "overlap_unread": "overlap: what is known of {task} can't be read",
    "overtaken": "overlap: {task} took its place",
    "buffered": "overlap: it waits for the one before to end",
    "buffer_full": "overlap: {number} others wait already",
    "lock_held": "overlap: the job's lock is held by {owner}",
    "lock_unread": "overlap: the job's lock can't be read",
    "paused": "paused by {owner}",
    "skip_next": "skipped on purpose by {owner}",
    "retired": "the job was retired: no instance that lived declared it",
    "excluded": "excluded by {calendar}",
    "not_fired": "no instance fired it before the next was due",
    "not_called": "nobody called for it before the next was due",
    "late": "more than {ms} late, and catch-up is skip",
    "not_begun": "no worker began it before the next was due",
    "not_begun_within": "no worker began it within {ms}",
    "took_place": "no worker began those before it",
    "backfilled": "it is backfilled",
    "fired": "",
    "trigger_changed": "the trigger was changed before it was fired",
    "went_back": "unknown: the store went back to an earlier state, and it may have run",
    "emptied": "unknown: the store was emptied in this time",
    "slot_lost": "unknown: its next slot was lost from the store",
    "clock_set_back": "the server's clock was set back: its next slot stood at {slot}",
    "rules_changed": "{slot} is no slot any more: the rules of its time zone changed (tzdata {versions})",
    "unreadable": "what the ledger has of it can't be read",
    "expired": "its lease was not renewed in time: the instance died, was frozen or cut off, one C call"
    " held its interpreter, or it ran on after its timeout",
    "released": "all leases of its owner were released",
    "lease_deleted": "its lease was deleted",
    "shutdown": "cut short: the instance was shut down",
    "cancelled": "it was cancelled{by}",
    "retried": "somebody wants it tried again",
    "max_delay": "max_delay: nobody began it in time",
    "max_duration": "max_duration: it had not ended in time",
    "retry_too_late": "max_duration: a retry would come too late",
    "job_deleted": "its job was deleted",
}

BECAUSE: dict[str, str] = {
    "overlap": "{task} had not ended when it came due, and by its overlap the job runs one at a time.",
    "overlap_unread": "What the store has of {task} can't be read: it may run still, so nothing was started beside it.",
    "overtaken": "{task} came due after it and took its place.",
    "buffered": "It waits in line: the one before it has not ended.",
    "buffer_full": "In line waited {number} slots already, and the job's buffer takes no more.",
    "lock_held": "The lock job:{job} was held by {owner}, which keeps the job from running.",
    "lock_unread": "What the store has under the lock job:{job} can't be read: it may be somebody's.",
    "paused": "The job was paused by {owner}.",
    "skip_next": "It was skipped on purpose by {owner}.",
    "excluded": "It lies on a day that the job excludes, by the calendar {calendar}.",
    "not_fired": "No instance fired it before a later slot was due: none ran, or none reached the store.",
    "retired": "The job was retired: no instance that lived declared it.",
    "not_called": "Nobody called for it, by `lockbeat exec`, before a later slot was called for.",
    "late": "No instance fired it in time: it was found when it was more than {ms} late, and so outside the job's window.",
    "not_begun": "No worker began it before a later slot took its place: all were busy, or none has its queue and its function.",
    "not_begun_within": "No worker began it within {ms}: all were busy, or none has its queue and its function.",
    "took_place": "It took the place of earlier slots, which no worker had begun.",
    "backfilled": "A backfill fired it, for it had not run at its time.",
    "fired": "",
    "trigger_changed": "The job was declared with another trigger before it was fired.",
    "went_back": "The store went back to an earlier state: nobody knows whether it ran, and it is not fired again.",
    "emptied": "The store was emptied in this time: nobody knows whether it ran.",
    "slot_lost": "The store lost where the job stood: nobody knows whether it ran.",
    "clock_set_back": "The server's clock was set back, and the job's next slot stood at {slot}.",
    "rules_changed": "The rules of its time zone changed (tzdata {versions}), and by the new ones {slot} is no slot.",
    "unreadable": "What the store has of it can't be read.",
    "expired": "Its lease was not renewed in time: the instance died, was frozen or cut off, one C call held its interpreter, "
    "or the function ran on after its timeout.",
    "released": "All leases of its instance were released, as by `lockbeat release-all`.",
    "lease_deleted": "Its lease was evicted from the store, or deleted by hand.",
    "shutdown": "Its instance was shut down before the function had ended.",
    "cancelled": "It was cancelled{by}.",
    "retried": "Somebody wants it tried again.",
    "max_delay": "Nobody began it within its max_delay.",
    "max_duration": "It had not ended within its max_duration.",
    "retry_too_late": "Another attempt would have come after its max_duration.",
    "job_deleted": "Its job was deleted.",
}
"""By the CODE of a reason: what people are told of it, in sentences."""

OF_MISSED = (
    *("not_fired", "not_called", "late", "not_begun", "not_begun_within", "took_place", "trigger_changed"),
    *("went_back", "emptied", "slot_lost", "clock_set_back", "rules_changed"),
)
OF_SKIPPED = (
    *("overlap", "overlap_unread", "overtaken", "buffer_full", "lock_held", "lock_unread"),
    *("paused", "skip_next", "retired", "excluded"),
)
"""What slots are counted by that are missed, and skipped; metrics have each from zero on."""

# Those that Python decides by.
BACKFILLED: Final = "backfilled"
BUFFERED: Final = "buffered"
BUFFER_FULL: Final = "buffer_full"
FIRED: Final = "fired"
EXPIRED: Final = "expired"
EXCLUDED: Final = "excluded"
OVERLAP: Final = "overlap"
PAUSED: Final = "paused"
RETIRED: Final = "retired"
SKIP_NEXT: Final = "skip_next"
TOOK_PLACE: Final = "took_place"
CANCELLED: Final = "cancelled"
CLOCK_SET_BACK: Final = "clock_set_back"
RULES_CHANGED: Final = "rules_changed"
UNREADABLE: Final = "unreadable"
JOB_DELETED: Final = "job_deleted"
RETRIED: Final = "retried"
RETRY_TOO_LATE: Final = "retry_too_late"
FIRED_BY = (
    *("fired", "took_place", "buffered", "backfilled", "expired", "released", "lease_deleted", "shutdown", "retried"),
    *("not_begun", "max_delay", "max_duration", "retry_too_late", "job_deleted"),
)
"""Of these, and of no reason, the detail is who fired it; empty: who began it did so at once, or an older version wrote it."""


def sentence(
    code: str, detail: str = "", *, task: Callable[[str], str] = str, ms: Callable[[int], str] = lambda ms: f"{ms} ms"
) -> str:
    """The sentence of a reason; empty: it needs none. `task` and `ms` spell a task's id and a duration as the reader likes them.

    code: one of this page's. Another, which a newer instance wrote, is given back with its detail.
    """
    if code not in SENTENCES:
        return f"{code} {detail}".strip()
    return SENTENCES[code].format_map(named(detail, task=task, ms=ms))


def named(detail: str, *, task: Callable[[str], str] = str, ms: Callable[[int], str] = str) -> dict[str, str]:
    """What a sentence may name of a detail, by the word of its kind."""
    slot, _, rules = detail.partition(" ")
    then, _, now = rules.partition(" ")
    return {
        "task": task(detail),
        "owner": detail,
        "by": f" by {detail}" if detail else "",
        "number": detail,
        "ms": ms(int(detail)) if detail.isdecimal() else detail,
        "calendar": f"{slot}: {rules}" if rules else slot,
        "slot": slot,
        "versions": f"{then} then, {now} now" if then != now else f"{now} now",
    }
