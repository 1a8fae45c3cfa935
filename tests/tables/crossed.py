"""Every catch-up with every overlap."""

from __future__ import annotations

from typing import Any

from tests.policies import Play

MATRIX: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {
    # Of each catch-up, and of the overlaps that go alike under it: how long each run takes, and what becomes of each slot. Nobody
    # fires from 15 to 45, and a run takes longer than a period.
    "latest": {
        "skip": (
            (25, 20, 25),
            """
            10: done 10-35
            20-30: missed not_fired
            40: done 45-65
            50: skipped overlap
            60: skipped overlap
            70: done 70-95
            80: skipped overlap
            90: skipped overlap
            """,
        ),
        "allow": (
            (25,),
            """
            10: done 10-35
            20-30: missed not_fired
            40: done 45-70
            50: done 50-75
            60: done 60-85
            70: done 70-95
            80: fired 80-
            90: fired 90-
            """,
        ),
        "buffer_one": (
            (25, 20),
            """
            10: done 10-35
            20-30: missed not_fired
            40: done 45-65
            50: skipped overtaken
            60: done 65-85
            70: skipped overtaken
            80: fired 85-
            90: fired buffered
            """,
        ),
        "buffer_all": (
            (25, 20),
            """
            10: done 10-35
            20-30: missed not_fired
            40: done 45-65
            50: done 65-85
            60: fired 85-
            70: fired buffered
            80: fired buffered
            90: fired buffered
            """,
        ),
        "cancel_other": (
            (25,),
            """
            10: done 10-35
            20-30: missed not_fired
            40: cancelled overtaken 45-53
            50: cancelled overtaken 53-63
            60: cancelled overtaken 63-73
            70: cancelled overtaken 73-83
            80: cancelled overtaken 83-93
            90: fired 93-
            """,
        ),
    },
    "skip": {
        "skip": (
            (25,),
            """
            10: done 10-35
            20-30: missed not_fired
            40: missed late
            50: done 50-75
            60: skipped overlap
            70: skipped overlap
            80: fired 80-
            90: skipped overlap
            """,
        ),
        "allow": (
            (25,),
            """
            10: done 10-35
            20-30: missed not_fired
            40: missed late
            50: done 50-75
            60: done 60-85
            70: done 70-95
            80: fired 80-
            90: fired 90-
            """,
        ),
        "buffer_one": (
            (25, 25, 20),
            """
            10: done 10-35
            20-30: missed not_fired
            40: missed late
            50: done 50-75
            60: skipped overtaken
            70: done 75-95
            80: skipped overtaken
            90: fired 95-
            """,
        ),
        "buffer_all": (
            (25, 25, 20),
            """
            10: done 10-35
            20-30: missed not_fired
            40: missed late
            50: done 50-75
            60: done 75-95
            70: fired 95-
            80: fired buffered
            90: fired buffered
            """,
        ),
        "cancel_other": (
            (25,),
            """
            10: done 10-35
            20-30: missed not_fired
            40: missed late
            50: cancelled overtaken 50-63
            60: cancelled overtaken 63-73
            70: cancelled overtaken 73-83
            80: cancelled overtaken 83-93
            90: fired 93-
            """,
        ),
    },
    "all": {
        "skip buffer_one buffer_all cancel_other": (
            (25, 20),
            """
            10: done 10-35
            20: done 45-65
            30: done 65-85
            40: fired 85-
            50: fired buffered
            60: fired buffered
            70: fired buffered
            80: fired buffered
            90: fired buffered
            """,
        ),
        "allow": (
            (25,),
            """
            10: done 10-35
            20: done 45-70
            30: done 45-70
            40: done 45-70
            50: done 50-75
            60: done 60-85
            70: done 70-95
            80: fired 80-
            90: fired 90-
            """,
        ),
    },
}
WITHOUT_WORKERS: dict[str, dict[str, str]] = {
    # The same while slots are fired, and no worker is there to begin what was fired.
    "latest": {
        "skip buffer_one cancel_other": """
            10: done 10-13
            20: missed not_begun
            30: missed not_begun
            40: done 45-48
            50: done 50-53
            """,
        "allow": """
            10: done 10-13
            20: done 45-48
            30: done 45-48
            40: done 45-48
            50: done 50-53
            """,
        "buffer_all": """
            10: done 10-13
            20: done 45-48
            30: done 48-51
            40: done 51-54
            50: done 54-57
            """,
    },
    "skip": {
        "skip buffer_one cancel_other": """
            10: done 10-13
            20: missed not_begun
            30: missed not_begun
            40: missed not_begun_within
            50: done 50-53
            """,
        "allow": """
            10: done 10-13
            20: missed not_begun_within
            30: missed not_begun_within
            40: missed not_begun_within
            50: done 50-53
            """,
        # Those behind the first have waited in line, so they were in time.
        "buffer_all": """
            10: done 10-13
            20: missed not_begun_within
            30: done 45-48
            40: done 48-51
            50: done 51-54
            """,
    },
    "all": {
        "skip buffer_one buffer_all cancel_other": """
            10: done 10-13
            20: done 45-48
            30: done 48-51
            40: done 51-54
            50: done 54-57
            """,
        "allow": """
            10: done 10-13
            20: done 45-48
            30: done 45-48
            40: done 45-48
            50: done 50-53
            """,
    },
}


def _play(catchup: str, overlap: str, **rest: Any) -> Play:
    """`skip` with a window, or it would fire what is five units late."""
    options = {"catchup": catchup, "overlap": overlap} | ({"window": 3} if catchup == "skip" else {})
    return Play(options, in_real_seconds=catchup != "skip", **rest)


CROSSED = {
    f"{catchup} and {overlap}": (
        _play(catchup, overlap, takes=(*takes, *takes[-1:] * 9), away=(15, 45), until=99),
        expected,
    )
    for catchup, row in MATRIX.items()
    for overlaps, (takes, expected) in row.items()
    for overlap in overlaps.split()
}
CROSSED |= {
    f"{catchup} and {overlap}, while no worker is there": (
        _play(catchup, overlap, takes=3, idle=(15, 45)),
        expected,
    )
    for catchup, without in WITHOUT_WORKERS.items()
    for overlaps, expected in without.items()
    for overlap in overlaps.split()
}
