"""Why something became of a slot or a task: the CODE that the store keeps, and the sentence that people read.

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
    "cancelled": "it was cancelled",
    "max_delay": "max_delay: nobody began it in time",
    "max_duration": "max_duration: it had not ended in time",
    "retry_too_late": "max_duration: a retry would come too late",
    "job_deleted": "its job was deleted",
}

# Those that Python decides by.
BUFFERED: Final = "buffered"
FIRED: Final = "fired"
EXCLUDED: Final = "excluded"
TOOK_PLACE: Final = "took_place"
CLOCK_SET_BACK: Final = "clock_set_back"
RULES_CHANGED: Final = "rules_changed"
UNREADABLE: Final = "unreadable"
RETRY_TOO_LATE: Final = "retry_too_late"


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
            "number": detail,
            "ms": ms(int(detail)) if detail.isdecimal() else detail,
            "calendar": f"{slot}: {rules}" if rules else slot,
            "slot": slot,
            "versions": f"{then} then, {now} now" if then != now else f"{now} now",
        }
    )
