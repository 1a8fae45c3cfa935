"""Every zone against cronsim, a second engine with Debian cron's rules; and where we differ on purpose."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim

from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import Cron, upcoming
from lockbeat.triggers.zones import stretch_at

ZONES = sorted(available_timezones() - {"localtime"})
HALF_HOUR = {"Australia/Lord_Howe", "Australia/LHI"}  # see test_difference_half_an_hour…; else test_dst.py
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FROM, TO = 1_577_836_800, 2_100_000_000  # 2020 to 2036


def exists(moment: datetime) -> bool:
    return moment.astimezone(UTC).astimezone(moment.tzinfo).replace(tzinfo=None) == moment.replace(tzinfo=None)


def cronsim(expression: str, zone: str, start: int, n: int) -> list[int]:
    """The next `n` slots by cronsim, in milliseconds, without two kinds that the tests below show."""
    slots: list[int] = []
    for moment in CronSim(expression, datetime.fromtimestamp(start, ZoneInfo(zone))):
        slot = (moment.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
        if exists(moment) and slot > start * 1000:
            slots.append(slot)
        if len(slots) == n:
            break
    return slots


class Lines:
    """Random lines, more of them around the hours at which clocks are changed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def field(self, low: int, high: int, star: float) -> str:
        r, kind = self.random, self.random.random()
        if kind < star:
            return "*"
        if kind < star + 0.1:
            return f"*/{r.randint(2, (high - low) // 2)}"
        if kind < star + 0.2:
            # Not `a-a`, which cronsim reads as `a/1` once it has a step.
            a = r.randint(low, high - 1)
            step = f"/{r.randint(1, 7)}" if r.random() < 0.5 else ""
            return f"{a}-{r.randint(a + 1, high)}{step}"
        if kind < star + 0.3:
            return ",".join(str(r.randint(low, high)) for _ in range(r.randint(2, 4)))
        return str(r.randint(low, high))

    def line(self) -> str:
        r = self.random
        weekday = r.choice(["*"] * 4 + [self.field(0, 7, 0), f"{r.randint(0, 6)}#{r.randint(1, 5)}", f"{r.randint(0, 6)}L"])
        return " ".join(
            [
                self.field(0, 59, 0.2),
                self.field(0, 4, 0.25) if r.random() < 0.7 else self.field(0, 23, 0.25),
                "L" if r.random() < 0.05 else self.field(1, 31, 0.6),
                self.field(1, 12, 0.8),
                weekday,
            ]
        )

    def start(self, zone: str) -> int:
        """Most often a day or two before the zone's clock is changed."""
        start = self.random.randrange(FROM, TO)
        end = stretch_at(zone, start).end
        return end - self.random.randrange(2 * 86_400) if self.random.random() < 0.8 else start


@pytest.mark.parametrize("seed", range(5))
def test_random_lines_fire_as_in_cronsim_in_every_zone(seed: int) -> None:
    lines = Lines(seed)
    compared = 0
    for zone in ZONES:
        line, start = lines.line(), lines.start(zone)
        try:
            cron = Cron(line, zone)
        except InvalidTrigger:  # such as 31 November; cronsim finds some of them out, too, or searches in vain
            continue
        if zone in HALF_HOUR and any(field.startswith("*") for field in line.split()[:2]):
            continue
        theirs = cronsim(line, zone, start, 15)
        ours = upcoming(cron, start * 1000, len(theirs))
        assert ours == theirs, f"{line} {zone} from {start}, seed {seed}"
        compared += len(theirs)
    assert compared > len(ZONES) * 10


@pytest.mark.parametrize("line", ["30 2 * * *", "*/30 * * * *", "15 * * * *", "0 0 * * *", "0,30 1-2 * * *"])
def test_the_usual_lines_fire_as_in_cronsim_through_a_year_of_changes(line: str) -> None:
    for zone in ZONES[::23]:
        start = 1_767_225_600
        for _ in range(3):
            start = stretch_at(zone, start).end
            theirs = cronsim(line, zone, start - 86_400, 30)
            assert upcoming(Cron(line, zone), (start - 86_400) * 1000, 30) == theirs, zone


@pytest.mark.parametrize("line", ["*/20 */15 * * * *", "5 30 * * * *", "*/30 59 1 * * *", "0 */7 2 * * *"])
def test_lines_with_seconds_that_follow_real_time_fire_as_in_cronsim(line: str) -> None:
    for zone in ["America/New_York", "Europe/Berlin", "America/Santiago", "Africa/Casablanca"]:
        start = stretch_at(zone, 1_790_000_000).end - 7200
        assert upcoming(Cron(line, zone), start * 1000, 200) == cronsim(line, zone, start, 200), zone


def berlin(day: int, hour: int, minute: int) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=ZoneInfo("Europe/Berlin"))


def test_difference_a_fixed_time_with_seconds_is_still_a_fixed_time() -> None:
    """cronsim lets all six-field lines follow real time, as they are not Debian's."""
    start = berlin(29, 0, 0)
    assert next(CronSim("0 30 2 * * *", start)) == berlin(30, 2, 30)
    assert Cron("0 30 2 * * *", "Europe/Berlin").next(int(start.timestamp()) * 1000) == int(berlin(29, 3, 0).timestamp() * 1000)
    # Without seconds, both agree.
    assert next(CronSim("30 2 * * *", start)) == berlin(29, 3, 0)


def test_difference_midnight_in_a_gap_is_not_made_up_for_a_star() -> None:
    """cronsim starts a day at 00:00 without asking whether it exists; a star invents nothing in a gap."""
    havana = ZoneInfo("America/Havana")
    start = datetime(2026, 3, 7, 12, tzinfo=havana)
    theirs = next(CronSim("*/30 0 8 3 *", start))
    assert theirs.replace(tzinfo=None) == datetime(2026, 3, 8, 0, 0)
    assert not exists(theirs)
    ours = Cron("*/30 0 8 3 *", "America/Havana").next(int(start.timestamp()) * 1000)
    assert ours == int(datetime(2027, 3, 8, tzinfo=havana).timestamp()) * 1000


def test_difference_half_an_hour_does_not_lose_a_slot() -> None:
    """cronsim goes to a single minute in one step of real time, past the half hour that Lord Howe jumps."""
    zone = ZoneInfo("Australia/Lord_Howe")
    start = datetime(2026, 10, 4, 1, 45, tzinfo=zone)
    assert next(CronSim("30 * * * *", start)) == datetime(2026, 10, 4, 3, 30, tzinfo=zone)
    ours = Cron("30 * * * *", "Australia/Lord_Howe").next(int(start.timestamp()) * 1000)
    assert ours == int(datetime(2026, 10, 4, 2, 30, tzinfo=zone).timestamp()) * 1000


def test_difference_a_start_in_the_second_pass_is_not_taken_for_the_first() -> None:
    """cronsim drops the fold of its start and answers with an instant that is over."""
    zone = ZoneInfo("America/New_York")
    start = datetime(2026, 11, 1, 1, 10, fold=1, tzinfo=zone)
    theirs = next(CronSim("30 1 * * *", start))
    assert theirs.timestamp() < start.timestamp()
    ours = Cron("30 1 * * *", "America/New_York").next(int(start.timestamp()) * 1000)
    assert ours == int(datetime(2026, 11, 2, 1, 30, tzinfo=zone).timestamp()) * 1000


def test_difference_a_range_of_one_value_with_a_step_is_that_value() -> None:
    """cronsim reads `5-5/20` as `5/20`; in Vixie cron a range ends where it says."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    steps = CronSim("5-5/20 * * * *", start)
    assert [next(steps).minute, next(steps).minute] == [5, 25]
    assert upcoming(Cron("5-5/20 * * * *"), int(start.timestamp()) * 1000, 2) == [
        int((start + timedelta(minutes=m)).timestamp()) * 1000 for m in (5, 65)
    ]


def test_difference_a_gap_that_ends_within_a_minute_is_left_at_its_end() -> None:
    """Monrovia went from 00:00:00 to 00:44:30 in 1972; cronsim leaves a gap by whole minutes only."""
    zone = ZoneInfo("Africa/Monrovia")
    start = datetime(1972, 1, 6, 12, tzinfo=zone)
    assert next(CronSim("30 0 * * *", start)).replace(tzinfo=None) == datetime(1972, 1, 7, 0, 45)
    ours = Cron("30 0 * * *", "Africa/Monrovia").next(int(start.timestamp()) * 1000)
    assert ours == int(datetime(1972, 1, 7, 0, 44, 30, tzinfo=zone).timestamp()) * 1000
