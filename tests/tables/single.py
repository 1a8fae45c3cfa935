"""One policy at a time."""

from __future__ import annotations

from tests.policies import Play

# Short enough to be played in real seconds, too.
PLAYS: dict[str, tuple[Play, str]] = {
    "skip: what comes due while it runs is not fired": (
        Play({"overlap": "skip"}, takes=15),
        """
        10: done 10-25
        20: skipped overlap
        30: done 30-45
        40: skipped overlap
        50: fired 50-
        """,
    ),
    "allow: all run, beside each other": (
        Play({"overlap": "allow"}, takes=15),
        """
        10: done 10-25
        20: done 20-35
        30: done 30-45
        40: done 40-55
        50: fired 50-
        """,
    ),
    "buffer_one: one waits, and the latest wins": (
        Play({"overlap": "buffer_one"}, takes=(25, 5, 5, 5)),
        """
        10: done 10-35
        20: skipped overtaken
        30: done 35-40
        40: done 40-45
        50: done 50-55
        """,
    ),
    "buffer_all: all wait, the oldest first": (
        Play({"overlap": "buffer_all"}, takes=(35, 3, 3, 3, 3)),
        """
        10: done 10-45
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "buffer_all: no more wait than may": (
        Play({"overlap": "buffer_all", "buffer": 1}, takes=(35, 3, 3, 3)),
        """
        10: done 10-45
        20: done 45-48
        30: skipped buffer_full
        40: skipped buffer_full
        50: done 50-53
        """,
    ),
    "buffer_all: what waits was fired in time, and its window does not drop it": (
        Play({"overlap": "buffer_all", "window": 4}, takes=(35, 3, 3, 3, 3)),
        """
        10: done 10-45
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "cancel_other: what runs is cancelled, and the next begins when it has stopped": (
        Play({"overlap": "cancel_other"}, takes=(15, 5, 15, 5, 5)),
        """
        10: cancelled overtaken 10-23
        20: done 23-28
        30: cancelled overtaken 30-43
        40: done 43-48
        50: done 50-55
        """,
    ),
}
LONGER: dict[str, tuple[Play, str]] = {
    "the same through the queue": (
        Play({"overlap": "buffer_one"}, takes=(25, 5, 5, 5), here=False),
        PLAYS["buffer_one: one waits, and the latest wins"][1],
    ),
    "buffer_one: while no worker is there, the latest takes the place": (
        Play({"overlap": "buffer_one"}, idle=(5, 35)),
        """
        10: missed not_begun
        20: missed not_begun
        30: done 35-40
        40: done 40-45
        50: done 50-55
        """,
    ),
    "buffer_all: while no worker is there, all wait": (
        Play({"overlap": "buffer_all"}, takes=3, idle=(5, 35)),
        """
        10: done 35-38
        20: done 38-41
        30: done 41-44
        40: done 44-47
        50: done 50-53
        """,
    ),
    "buffer_all: one that is tried again keeps its turn": (
        Play({"overlap": "buffer_all", "max_attempts": 2}, takes=(15, 15, 3, 3, 3, 3), fails=(0,)),
        """
        10: done 10-25 25-40
        20: done 40-43
        30: done 43-46
        40: done 46-49
        50: done 50-53
        """,
    ),
    "latest: an outage costs all slots but the latest": (
        Play({"catchup": "latest"}, away=(15, 45)),
        """
        10: done 10-15
        20-30: missed not_fired
        40: done 45-50
        50: done 50-55
        """,
    ),
    "skip: the latest too, if it is late": (
        Play({"catchup": "skip", "window": 3}, away=(15, 45)),
        """
        10: done 10-15
        20-30: missed not_fired
        40: missed late
        50: done 50-55
        """,
    ),
    "all: the missed ones, the oldest first, one at a time": (
        Play({"catchup": "all"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "all: beyond the cap the oldest are missed": (
        Play({"catchup": "all", "cap": 2}, takes=3, away=(15, 65), until=79),
        """
        10: done 10-13
        20-40: missed not_fired
        50: done 65-68
        60: done 68-71
        70: skipped overlap
        """,
    ),
    "all: a window bounds it": (
        Play({"catchup": "all", "window": 17}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: missed not_fired
        30: done 45-48
        40: done 48-51
        50: skipped overlap
        """,
    ),
    "all: what is late behind what was missed is not dropped by the window, but waits its turn": (
        Play({"catchup": "all", "window": 17}, takes=9, away=(15, 45), until=79),
        """
        10: done 10-19
        20: missed not_fired
        30: done 45-54
        40: done 54-63
        50: done 63-72
        60: fired 72-
        70: fired buffered
        """,
    ),
    "all and allow: beside each other": (
        Play({"catchup": "all", "overlap": "allow"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 45-48
        40: done 45-48
        50: done 50-53
        """,
    ),
    "all and buffer_one: the missed wait all, as they do under any overlap": (
        Play({"catchup": "all", "overlap": "buffer_one"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "all and cancel_other: what is caught up is not cancelled": (
        Play({"catchup": "all", "overlap": "cancel_other"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "all: a slot of now is skipped as ever": (
        Play({"catchup": "all"}, takes=15),
        PLAYS["skip: what comes due while it runs is not fired"][1],
    ),
    "all: while no worker is there, all wait": (
        Play({"catchup": "all"}, takes=3, idle=(5, 35)),
        """
        10: done 35-38
        20: done 38-41
        30: done 41-44
        40: done 44-47
        50: done 50-53
        """,
    ),
    "a window: begun within it, or missed": (
        Play({"window": 3}, idle=(15, 25)),
        """
        10: done 10-15
        20: missed not_begun_within
        30: done 30-35
        40: done 40-45
        50: done 50-55
        """,
    ),
    "a limit: fired as often, and no more": (
        Play({"limit": 2}, takes=15),
        """
        10: done 10-25
        20: skipped overlap
        30: done 30-45
        """,
    ),
}
