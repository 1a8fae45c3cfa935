"""A trigger in English says what it says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lockbeat.triggers import AnyOf, At, ByHand, Called, Cron, Every, Trigger
from lockbeat.triggers.between import Between
from lockbeat.triggers.english import in_english

BERLIN = ", Europe/Berlin time"


@pytest.mark.parametrize(
    ("line", "said"),
    {
        "* * * * *": "every minute",
        "*/5 * * * *": "every 5 minutes",
        "2-59/5 * * * *": "every 5 minutes from :02",
        "* * * * * *": "every second",
        "*/10 * * * * *": "every 10 seconds",
        "15 * * * *": "every hour at :15",
        "0 */2 * * *": "every 2 hours, UTC",
        "7,22,37 * * * *": "every hour at minutes 7, 22 and 37",
        "23 0-20/2 * * *": "every hour at minute 23 in the hours 00, 02, 04, 06, 08, 10, 12, 14, 16, 18 and 20, UTC",
        "1-9 * * * *": "every hour at minutes 1 to 9",
        "0 9-17 * * *": "every hour from 09:00 to 17:00, UTC",
        "5 9-17 * * mon-fri": "every hour from 09:05 to 17:05 on weekdays, UTC",
        "0 1-23/2 * * *": "every 2 hours from 01:00, UTC",
        "7 */2 * * *": "every 2 hours at :07, UTC",
        "5-59/10 * * * * *": "every 10 seconds from second 5",
        "@daily": "every day at 00:00, UTC",
        "0 9,17 * * *": "every day at 09:00 and 17:00, UTC",
        "30 0 9 * * *": "every day at 09:00:30, UTC",
        "0 9 * * mon-fri": "at 09:00 on weekdays, UTC",
        "0 9 * * sat,sun": "at 09:00 on weekends, UTC",
        "5 4 * * sun": "at 04:05 on Sundays, UTC",
        "0 9 * * tue,thu": "at 09:00 on Tuesdays and Thursdays, UTC",
        "*/15 9-17 * * 1-5": "every 15 minutes from 09:00 to 17:59 on weekdays, UTC",
        "0 12 * * fri#2": "at 12:00 on the second Friday of the month, UTC",
        "0 12 * * L5": "at 12:00 on the last Friday of the month, UTC",
        "0 0 L * *": "at 00:00 on the last day of the month, UTC",
        "0 0 1,15 * *": "at 00:00 on the 1st and the 15th of the month, UTC",
        "30 2 25 10 *": "at 02:30 on the 25th of October, UTC",
        "0 0 * jan-mar *": "every day at 00:00, January to March, UTC",
        "0 0 13 * fri": "at 00:00 on the 13th of the month, and on Fridays, UTC",
        "0 0 */2 * fri": "at 00:00 on every 2nd day of the month, if that is a Friday, UTC",
    }.items(),
)
def test_a_cron_line(line: str, said: str) -> None:
    assert in_english(Cron(line)) == said
    assert in_english(Cron(line, "Europe/Berlin")) == said.removesuffix(", UTC") + BERLIN


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (Every(60), "every minute"),
        (Every(90), "every 90 seconds"),
        (Every(7200), "every 2 hours"),
        (Every(0.25), "every 250 milliseconds"),
        (At(datetime(2030, 1, 31, 12, tzinfo=UTC)), "once, at 2030-01-31T12:00:00+00:00"),
        (ByHand(), "only when it is triggered"),
        (Called(Every(60)), "every minute, when it is called"),
        (Called(None, 3_600_000), "when it is called, at most once per hour"),
        (AnyOf(Every(60), Cron("@daily")), "every minute; and every day at 00:00, UTC"),
        (Between(Every(60), datetime(2030, 1, 1, tzinfo=UTC)), "every minute, from 2030-01-01T00:00:00+00:00 on"),
        (Cron("H 3 * * *"), "at times that the job's name decides: H 3 * * *"),
    ],
)
def test_another_trigger(trigger: Trigger, said: str) -> None:
    assert in_english(trigger) == said
