"""What the tests make faster of fakeredis is as strict as it was."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest
from redis.exceptions import ResponseError


@pytest.fixture
def memory() -> Any:
    return fakeredis.FakeRedis()


def test_a_script_is_run_with_what_it_is_given_each_time(memory: Any) -> None:
    script = "redis.call('INCRBY', KEYS[1], ARGV[1]); return {redis.call('GET', KEYS[1]), #ARGV}"
    assert [memory.eval(script, 1, "k", number) for number in (1, 2)] == [[b"1", 1], [b"3", 1]]


@pytest.mark.parametrize("script", ["stray = 1", "stray = 1; return redis.call('GET', 'k')", "(function() stray = 1 end)()"])
def test_a_script_that_sets_a_global_is_refused(memory: Any, script: str) -> None:
    memory.eval("return 1", 0)
    with pytest.raises(ResponseError, match="stray"):
        memory.eval(script, 0)


def test_what_is_no_lua_is_refused_each_time(memory: Any) -> None:
    for _ in range(2):
        with pytest.raises(ResponseError, match="unexpected symbol near"):
            memory.eval("return return", 0)
