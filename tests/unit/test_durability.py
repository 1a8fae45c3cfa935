"""What a Durability may ask for, and what counts as met."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lockbeat import Durability
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.store.durable import check_durability


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({"replicas": 1}, ("WAIT", "1", "1000")),
        ({"replicas": 2, "timeout": 0.25}, ("WAIT", "2", "250")),
        ({"fsync": True, "timeout": timedelta(seconds=60)}, ("WAITAOF", "1", "0", "60000")),
        ({"fsync": True, "replicas": 1}, ("WAITAOF", "1", "1", "1000")),
    ],
)
def test_what_is_asked_of_the_server(given: Any, command: tuple[str, ...]) -> None:
    assert Durability(**given).command == command


@pytest.mark.parametrize(
    ("durability", "reply", "missing"),
    [
        (Durability(replicas=1), 1, None),
        (Durability(replicas=1), 3, None),
        (Durability(replicas=2), 1, "1 of 2 replicas have it after 1 s"),
        (Durability(fsync=True), [1, 0], None),
        (Durability(fsync=True, timeout=0.5), [0, 2], "not on the server's disk after 0.5 s"),
        (Durability(fsync=True, replicas=1), [1, 1], None),
        (Durability(fsync=True, replicas=1), [1, 0], "0 of 1 replicas have it after 1 s"),
    ],
)
def test_what_counts_as_met(durability: Durability, reply: Any, missing: str | None) -> None:
    assert durability.missing(reply) == missing


@pytest.mark.parametrize(
    ("given", "argument", "error"),
    [
        ({}, "replicas", InvalidArgument),
        ({"replicas": 0, "fsync": False}, "replicas", InvalidArgument),
        ({"replicas": -1}, "replicas", InvalidArgument),
        ({"replicas": -1, "fsync": True}, "replicas", InvalidArgument),
        ({"replicas": 101}, "replicas", InvalidArgument),
        ({"replicas": 1.0}, "replicas", InvalidType),
        ({"replicas": True}, "replicas", InvalidType),
        ({"fsync": 1}, "fsync", InvalidType),
        ({"replicas": 1, "timeout": 0}, "timeout", InvalidArgument),
        ({"replicas": 1, "timeout": 61}, "timeout", InvalidArgument),
        ({"replicas": 1, "timeout": None}, "timeout", InvalidType),
    ],
)
def test_what_can_not_be_asked_for_is_refused_when_it_is_made(given: Any, argument: str, error: type[InvalidArgument]) -> None:
    with pytest.raises(error) as caught:
        Durability(**given)
    assert caught.value.argument == argument


def test_it_must_be_one_and_leave_something_of_the_lease() -> None:
    assert check_durability(None, 1) is None
    assert check_durability(Durability(replicas=1), 1001) is not None
    with pytest.raises(InvalidArgument, match=r"durability: may take 1 s, and the lease lasts 0\.5 s"):
        check_durability(Durability(replicas=1), 500)
    with pytest.raises(InvalidType, match="durability: must be a Durability or None, not int"):
        check_durability(1)  # type: ignore[arg-type]


def test_it_is_a_value() -> None:
    assert Durability(replicas=1) == Durability(replicas=1)
    assert len({Durability(replicas=1), Durability(replicas=1), Durability(fsync=True)}) == 2
