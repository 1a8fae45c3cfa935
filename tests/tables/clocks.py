"""What hangs on clocks and days; each play begins when it says, with a unit of its own. For a clock that is moved."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lockbeat.triggers import Cron
from tests.policies import Play

START = datetime(2026, 5, 1, tzinfo=UTC)


def _berlin(line: str, **changes: Any) -> Any:
    return lambda start, unit: Cron(line, "Europe/Berlin", **changes)


AUTUMN, SPRING = datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 3, 28, 23, tzinfo=UTC)
"""Midnight in Berlin. Ten units are an hour: at 30 the clock is set back from 3:00 to 2:00; at 20 it is set forward to 3:00."""
HOUR, MINUTE, QUARTER = 360.0, 60.0, 2160.0
"""Seconds of a unit: of an hour ten units, of an hour sixty, of a day forty."""
CLOCKS: dict[str, tuple[datetime, float, Play, str]] = {
    "fold first: what comes twice is fired the first time": (
        AUTUMN,
        HOUR,
        Play({}, takes=2, trigger=_berlin("30 1,2,3 * * *")),
        """
        15: done 15-17
        25: done 25-27
        45: done 45-47
        """,
    ),
    "fold both": (
        AUTUMN,
        HOUR,
        Play({}, takes=2, trigger=_berlin("30 1,2,3 * * *", fold="both")),
        """
        15: done 15-17
        25: done 25-27
        35: done 35-37
        45: done 45-47
        """,
    ),
    "fold last": (
        AUTUMN,
        HOUR,
        Play({}, takes=2, trigger=_berlin("30 1,2,3 * * *", fold="last")),
        """
        15: done 15-17
        35: done 35-37
        45: done 45-47
        """,
    ),
    "fold both, in an outage": (
        AUTUMN,
        HOUR,
        Play({"catchup": "all"}, takes=2, away=(20, 40), trigger=_berlin("30 1,2,3 * * *", fold="both")),
        """
        15: done 15-17
        25: done 40-42
        35: done 42-44
        45: done 45-47
        """,
    ),
    "a line that follows real time": (
        AUTUMN,
        HOUR,
        Play({}, takes=2, trigger=_berlin("30 * * * *")),
        """
        5: done 5-7
        15: done 15-17
        25: done 25-27
        35: done 35-37
        45: done 45-47
        55: done 55-57
        """,
    ),
    "gap after: what is skipped is fired right after it": (
        SPRING,
        HOUR,
        Play({}, takes=2, trigger=_berlin("30 1,2,3 * * *")),
        """
        15: done 15-17
        20: done 20-22
        25: done 25-27
        """,
    ),
    "gap skip: it is not fired": (
        SPRING,
        HOUR,
        Play({}, takes=2, trigger=_berlin("30 1,2,3 * * *", gap="skip")),
        """
        15: done 15-17
        25: done 25-27
        """,
    ),
    "H is a minute of the job's own": (
        START,
        MINUTE,
        Play({}, takes=2, until=130, trigger=lambda start, unit: Cron("H * * * *")),
        """
        30: done 30-32
        90: done 90-92
        """,
    ),
    "jitter holds each slot back by its own, and no window counts it": (
        START,
        1,
        Play({"jitter": 8, "window": 1}, takes=1),
        """
        10: done 18-19
        20: done 27-28
        30: done 37-38
        40: done 44-45
        50: done 57-58
        """,
    ),
    "excluded: each slot of the day is skipped": (
        START,
        QUARTER,
        Play({}, takes=2, until=99, closed=["2026-05-02 Closed"]),
        """
        10: done 10-12
        20: done 20-22
        30: done 30-32
        40: skipped excluded
        50: skipped excluded
        60: skipped excluded
        70: skipped excluded
        80: done 80-82
        90: done 90-92
        """,
    ),
    "excluded, in an outage: the latest that is not": (
        START,
        QUARTER,
        Play({}, takes=2, until=89, away=(25, 75), closed=["2026-05-02 Closed"]),
        """
        10: done 10-12
        20: done 20-22
        30: done 75-77
        40-70: skipped excluded
        80: done 80-82
        """,
    ),
    "excluded, in an outage: there is a later one": (
        START,
        QUARTER,
        Play({}, takes=2, until=99, away=(25, 95), closed=["2026-05-02 Closed"]),
        """
        10: done 10-12
        20: done 20-22
        30: missed not_fired
        40-70: skipped excluded
        80: missed not_fired
        90: done 95-97
        """,
    ),
    "excluded, catch-up all": (
        START,
        QUARTER,
        Play({"catchup": "all"}, takes=2, until=109, away=(15, 95), closed=["2026-05-02 Closed"]),
        """
        10: done 10-12
        20: done 95-97
        30: done 97-99
        40-70: skipped excluded
        80: done 99-101
        90: done 101-103
        100: done 103-105
        """,
    ),
    "excluded, catch-up all within a window": (
        START,
        QUARTER,
        Play({"catchup": "all", "window": 19}, takes=2, until=109, away=(15, 95), closed=["2026-05-02 Closed"]),
        """
        10: done 10-12
        20-30: missed not_fired
        40-70: skipped excluded
        80: done 95-97
        90: done 97-99
        100: done 100-102
        """,
    ),
    "excluded, catch-up skip": (
        START,
        QUARTER,
        Play({"catchup": "skip", "window": 3}, takes=2, until=109, away=(15, 95), closed=["2026-05-02 Closed"]),
        """
        10: done 10-12
        20-30: missed not_fired
        40-70: skipped excluded
        80: missed not_fired
        90: missed late
        100: done 100-102
        """,
    ),
    "excluded, buffer_all: what waits in line is not": (
        START,
        QUARTER,
        Play({"overlap": "buffer_all"}, takes=(22, 22, 22, 22), until=89, closed=["2026-05-02 Closed"]),
        """
        10: done 10-32
        20: done 32-54
        30: done 54-76
        40: skipped excluded
        50: skipped excluded
        60: skipped excluded
        70: skipped excluded
        80: fired 80-
        """,
    ),
    "excluded, in a pause": (
        START,
        QUARTER,
        Play(
            {},
            takes=2,
            until=99,
            acts={15: ("pause", {}), 65: ("resume", {"catchup": "latest"})},
            closed=["2026-05-02 Closed"],
        ),
        """
        10: done 10-12
        20: skipped paused
        30: done 65-67
        40-60: skipped excluded
        70: skipped excluded
        80: done 80-82
        90: done 90-92
        """,
    ),
}
