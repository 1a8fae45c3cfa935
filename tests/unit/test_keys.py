"""Key names, shards and what a name may be."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.store.keys import KEYS, Keys, job_lock, shard_of
from lockbeat.values.names import MAX_NAME_BYTES, check_name


def test_a_key_is_namespace_shard_and_name_with_the_first_two_as_hash_tag() -> None:
    assert Keys("app").key(3, "lock:owned") == "{app:3}:lock:owned"


def test_channels_lie_under_the_same_prefix_as_keys() -> None:
    keys = Keys("app")
    assert keys.channel("to:all").startswith("{app")
    assert keys.key(0, "lock").startswith("{app")


@given(st.from_regex(r"[A-Za-z0-9._:/-]{1,64}", fullmatch=True), st.integers(0, 1023))
def test_all_keys_of_a_shard_share_a_slot_whatever_the_namespace(namespace: str, shard: int) -> None:
    keys = Keys(namespace)
    assert len({key_slot(keys.key(shard, name).encode()) for name in KEYS}) == 1


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "a}", "é", "a\n", "x" * 65, "a*", "a?"])
def test_a_namespace_that_could_break_a_key_or_a_pattern_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Keys(namespace)
    assert caught.value.argument == "namespace"


@pytest.mark.parametrize("namespace", [None, 7, b"app"])
def test_a_namespace_is_a_str(namespace: Any) -> None:
    with pytest.raises(InvalidType, match="namespace: must be a str"):
        Keys(namespace)


@given(st.text(min_size=1), st.integers(1, 1024))
def test_a_name_has_one_shard_in_range_and_always_the_same(name: str, shards: int) -> None:
    shard = shard_of(name, shards)
    assert 0 <= shard < shards
    assert shard == shard_of(name, shards) == (crc32(name.encode()) % shards if shards > 1 else 0)


def test_shards_are_stable_across_releases() -> None:
    """Changing these loses every lock and task of a store in use."""
    assert [shard_of(name, 3) for name in ("a", "b", "report", "job:daily", "é", "🔒")] == [0, 2, 2, 2, 2, 0]


def test_names_spread_over_the_shards() -> None:
    counts = [0] * 8
    for n in range(8000):
        counts[shard_of(f"name-{n}", 8)] += 1
    assert min(counts) > 800


def test_a_jobs_lock_is_named_after_it() -> None:
    assert job_lock("daily") == "job:daily"


@given(st.text(min_size=1, max_size=MAX_NAME_BYTES // 4))
def test_any_text_that_utf8_carries_is_a_name(name: str) -> None:
    assert check_name("key", name) is name


@pytest.mark.parametrize("name", ["x" * 1024, "é" * 512, "🔒" * 256, "\0", " ", "{}"])
def test_a_name_may_have_1024_bytes(name: str) -> None:
    assert check_name("key", name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("x" * 1025, "at most 1024 bytes, not 1025"),
        ("é" * 513, "at most 1024 bytes, not 1026"),
        ("a\ud800", "surrogates"),
    ],
)
def test_a_bad_name_is_refused_and_the_argument_named(name: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as caught:
        check_name("owner", name)
    assert caught.value.argument == "owner"
    assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize("name", [None, 1, b"x", ["x"], object()])
def test_other_than_a_str_is_a_type_error_too(name: object) -> None:
    with pytest.raises(InvalidType) as caught:
        check_name("owner", name)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_no_two_keys_share_a_name_and_all_are_documented() -> None:
    assert all(description.split()[0] in ("string", "hash", "zset", "channel") for description in KEYS.values())
