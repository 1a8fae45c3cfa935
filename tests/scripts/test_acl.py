"""A user that may touch nothing but its namespace can do everything, so every key and channel is declared and prefixed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from lockbeat import Lockbeat
from lockbeat.errors import StoreError
from tests import servers
from tests.conftest import chosen
from tests.keeping import renewed
from tests.servers import Server

SCRIPTING = "+evalsha +eval +subscribe +unsubscribe +publish +time +exists"
DATA = "+get +set +pexpireat +unlink +hget +hmget +hset +hdel +hexists +zadd +zrem +zcount +zmscore +zrangebylex +zrangebyscore"
USER = "user limited on >pw resetkeys ~{app:* resetchannels &{app* -@all " + f"{SCRIPTING} {DATA}"


@pytest.fixture(params=chosen("valkey", "redis"), scope="module")
def guarded(request: pytest.FixtureRequest) -> Iterator[Server]:
    with servers.standalone(servers.binary(request.param), acl=[USER]) as server:
        yield server


def url(server: Server, user: str = "limited:pw") -> str:
    return f"redis://{user}@127.0.0.1:{server.port}"


@pytest.mark.parametrize("shards", [1, 3])
async def test_a_user_of_one_namespace_can_do_everything_with_locks(guarded: Server, shards: int) -> None:
    guarded.call("FLUSHALL")
    async with (
        Lockbeat(url(guarded), namespace="app", shards=shards) as lb,
        Lockbeat(url(guarded), namespace="app") as other,
    ):
        for n in range(5):
            assert await lb.locks.try_acquire(f"k{n}", "alice", 30)
        assert await other.locks.try_acquire("k0", "bob", 30) is None
        assert await lb.locks.renew("k0", "alice", 30)
        assert await lb.locks.is_locked("k0")
        assert await lb.locks.owner("k0") == "alice"
        assert len(await lb.locks.list()) == 5
        waiting = [asyncio.create_task(other.lock(f"k{n}", wait=60).__aenter__()) for n in range(2)]
        tasks = asyncio.gather(*waiting)
        while len(other.locks._room._rooms) < 2:
            await asyncio.sleep(0)
        await other.store.server_time()
        assert await lb.locks.release("k0", "alice")
        assert await lb.locks.release_all("alice") == 4
        await asyncio.wait_for(tasks, 15)
        await renewed(other)
        assert await other.locks.release_all(other.owner) == 2


async def test_another_namespace_is_refused_with_the_servers_own_words(guarded: Server) -> None:
    with pytest.raises(StoreError, match=r"(?i)no permissions|NOPERM"):
        async with asyncio.timeout(30), Lockbeat(url(guarded), namespace="other"):
            pass


async def test_a_wrong_password_is_an_error_at_once(guarded: Server) -> None:
    with pytest.raises(StoreError, match="invalid username-password"):
        async with asyncio.timeout(30), Lockbeat(url(guarded, "limited:wrong"), namespace="app"):
            pass


async def test_waiting_without_the_right_to_the_channel_says_so(guarded: Server) -> None:
    guarded.call("ACL", "SETUSER", "deaf", "on", ">pw", *USER.split()[4:], "resetchannels")
    async with Lockbeat(url(guarded, "deaf:pw"), namespace="app", timeout=1) as lb:
        with pytest.raises(StoreError, match=r"(?i)permission|NOPERM"):
            await lb.lock("k").__aenter__()
    async with Lockbeat(url(guarded, "deaf:pw"), namespace="app", timeout=60) as lb:
        # At once, and not as a lock that somebody else holds.
        for _ in range(2):
            with pytest.raises(StoreError, match=r"(?i)can't subscribe: .*permission"):
                async with asyncio.timeout(30):
                    await lb.lock("k", wait=50).__aenter__()
        guarded.call("ACL", "SETUSER", "deaf", "&{app*")
        async with asyncio.timeout(30):
            while not await renewable(lb):
                await asyncio.sleep(0.05)


async def renewable(lb: Lockbeat) -> bool:
    """Whether a lock can be waited for by now."""
    try:
        async with lb.lock("k", wait=50):
            return True
    except StoreError:
        return False
