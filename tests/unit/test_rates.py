"""How much happens in a second is told of two looks at the store's counts, and of nothing else."""

from __future__ import annotations

from lockbeat.web.rates import Looks, Rates, Seen
from lockbeat.web.render import rate


def seen(at: float, many: int) -> Seen:
    return Seen(at, many, 2 * many, 3 * many, 4 * many, 0)


def test_the_first_look_tells_nothing_and_the_second_what_was_in_between() -> None:
    looks = Looks()
    assert looks.rates(seen(100, 10)) is None
    assert looks.rates(seen(100.5, 11)) is None, "too little time"
    assert looks.rates(seen(104, 30)) == Rates(4, 5, 10, 15, 20, 0)
    assert looks.rates(seen(110, 30)) == Rates(10, 2, 4, 6, 8, 0)


def test_it_looks_back_a_minute_or_to_the_look_before() -> None:
    looks = Looks()
    assert looks.rates(seen(0, 0)) is None
    for at in range(3, 300, 3):
        found = looks.rates(seen(at, at))
        assert found is not None
        assert (found.seconds, found.fired) == (min(at, 60), 1)
    found = looks.rates(seen(2000, 2000))
    assert found is not None
    assert found.seconds > 1000, "nobody looked in between"
    found = looks.rates(seen(2003, 2006))
    assert found is not None
    assert (found.seconds, found.fired) == (3, 2), "what was hours ago counts no more"


def test_a_store_that_was_emptied_or_set_back_begins_anew() -> None:
    looks = Looks()
    assert looks.rates(seen(100, 10)) is None
    assert looks.rates(seen(110, 3)) is None, "emptied"
    assert looks.rates(seen(112, 5)) is not None
    assert looks.rates(seen(90, 6)) is None, "the clock was set back"
    assert looks.rates(seen(92, 8)) == Rates(2, 1, 2, 3, 4, 0)


def test_however_often_it_looks_it_keeps_a_minute() -> None:
    looks = Looks()
    for turn in range(20_000):
        looks.rates(seen(turn / 10, turn))
    assert len(looks._seen) < 70


def test_what_is_seldom_is_told_by_how_seldom() -> None:
    assert [rate(each) for each in (0, 1 / 3600, 1 / 60, 0.25, 12.345, 4321.0)] == [
        "0", "1 in 1 h", "1 in 1 m", "0.25", "12.3", "4,321",
    ]  # fmt: skip
