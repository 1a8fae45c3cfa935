"""What bounds a job, and who steps in."""

from __future__ import annotations

from lockbeat import Every
from lockbeat.triggers import AnyOf
from tests.policies import Play

PEOPLE: dict[str, tuple[Play, str]] = {
    "a pause: its slots are skipped": (
        Play({}, takes=3, acts={15: ("pause", {}), 45: ("resume", {})}),
        """
        10: done 10-13
        20-40: skipped paused
        50: done 50-53
        """,
    ),
    "a pause, and its latest slot": (
        Play({}, takes=3, acts={15: ("pause", {}), 45: ("resume", {"catchup": "latest"})}),
        """
        10: done 10-13
        20-30: skipped paused
        40: done 45-48
        50: done 50-53
        """,
    ),
    "a pause, and all its slots": (
        Play({"catchup": "all"}, takes=3, acts={15: ("pause", {}), 45: ("resume", {"catchup": "all"})}),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        40: done 51-54
        50: done 54-57
        """,
    ),
    "a pause: what waits in line has been fired": (
        Play({"overlap": "buffer_all"}, takes=(35, 2, 2), acts={35: ("pause", {})}),
        """
        10: done 10-45
        20: done 45-47
        30: done 47-49
        """,
    ),
    "a pause until a time: the slot at that time is fired": (
        Play({}, takes=3, acts={15: ("pause", {"until": 40})}),
        """
        10: done 10-13
        20-30: skipped paused
        40: done 40-43
        50: done 50-53
        """,
    ),
    "a pause that ends in an outage": (
        Play({}, takes=3, away=(15, 55), acts={15: ("pause", {"until": 35})}),
        """
        10: done 10-13
        20-30: skipped paused
        40: missed not_fired
        50: done 55-58
        """,
    ),
    "skip the next two": (
        Play({}, takes=3, acts={15: ("skip_next", {"n": 2})}),
        """
        10: done 10-13
        20-30: skipped skip_next
        40: done 40-43
        50: done 50-53
        """,
    ),
    "skip the next two, taken back": (
        Play({}, takes=3, acts={15: ("skip_next", {"n": 2}), 25: ("resume", {})}),
        """
        10: done 10-13
        20: skipped skip_next
        30: done 30-33
        40: done 40-43
        50: done 50-53
        """,
    ),
    "a triggered run: slots are skipped for it": (
        Play({}, takes=(3, 20, 3, 3), acts={15: ("trigger", {})}),
        """
        10: done 10-13
        20: skipped overlap
        30: skipped overlap
        40: done 40-43
        50: done 50-53
        """,
    ),
    "a triggered run: under buffer_one they wait for it": (
        Play({"overlap": "buffer_one"}, takes=(3, 20, 3, 3, 3), acts={15: ("trigger", {})}),
        """
        10: done 10-13
        20: skipped overtaken
        30: done 35-38
        40: done 40-43
        50: done 50-53
        """,
    ),
    "pause_after: two failures in a row": (
        Play({"pause_after": 2}, takes=3, fails=(0, 1), acts={45: ("resume", {})}),
        """
        10: failed 10-13
        20: failed 20-23
        30-40: skipped paused
        50: done 50-53
        """,
    ),
    "a limit, in an outage": (
        Play({"limit": 3, "catchup": "all"}, takes=3, away=(15, 45)),
        """
        10: done 10-13
        20: done 45-48
        30: done 48-51
        """,
    ),
    "start and end": (
        Play({"start": 20, "end": 50}, takes=3),
        """
        20: done 20-23
        30: done 30-33
        40: done 40-43
        """,
    ),
    "an end in an outage": (
        Play({"end": 41}, takes=3, away=(15, 55)),
        """
        10: done 10-13
        20-30: missed not_fired
        40: done 55-58
        """,
    ),
    "several triggers: what both have is one slot": (
        Play({}, takes=2, trigger=lambda start, unit: AnyOf(Every(10 * unit, start), Every(15 * unit, start))),
        """
        10: done 10-12
        15: done 15-17
        20: done 20-22
        30: done 30-32
        40: done 40-42
        45: done 45-47
        50: done 50-52
        """,
    ),
    "several triggers, in an outage": (
        Play(
            {"catchup": "all", "cap": 3},
            takes=2,
            away=(17, 47),
            in_real_seconds=False,
            trigger=lambda start, unit: AnyOf(Every(10 * unit, start), Every(15 * unit, start)),
        ),
        """
        10: done 10-12
        15: done 15-17
        20: missed not_fired
        30: done 47-49
        40: done 49-51
        45: done 51-53
        50: done 53-55
        """,
    ),
}
