"""The shared connection: what travels together, and what stays apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
import redis.asyncio
import redis.exceptions

from lockbeat import Lockbeat
from lockbeat.errors import ScriptError, StoreError, StoreUnavailable
from lockbeat.store.batch import Batch, Target
from lockbeat.store.keys import Keys
from lockbeat.store.line import take_over
from lockbeat.store.replies import error_of
from lockbeat.store.scripts import load
from lockbeat.store.wire import ENOUGH, Wire
from tests.conftest import PATIENCE, Backend, Connect, only, wait_until
from tests.servers import Server

REAL = only("valkey", "redis")


async def acquires(lb: Lockbeat, count: int, owner: str = "alice") -> list[Any]:
    return await asyncio.gather(*(lb.locks.try_acquire(f"k{n}", owner, 30) for n in range(count)), return_exceptions=True)


@pytest.mark.parametrize("word", ["", "plain", "\r\n*9\r\n$1\r\n", "größer", b"\xff\x00", 2**53, "x" * 70_000])
def test_a_command_whose_head_is_packed_apart_is_the_same(word: str | bytes | int) -> None:
    target = Target(load("task/complete"), ["{ü:0}:task", "*3\r\n"])
    for calls in range(4):
        batch = Batch(target, target.head)
        batch.args.extend([word, "me", 7, ""] * calls)
        assert batch.packed() == hiredis.pack_command(batch.command())
    alone = Batch(None, ("PING",))
    assert alone.packed() == hiredis.pack_command(("PING",))


@REAL
@pytest.mark.parametrize(("calls", "runs"), [(1, 1), (ENOUGH, 1), (ENOUGH + 1, 2), (2 * ENOUGH, 2), (2 * ENOUGH + 1, 3)])
async def test_calls_of_one_turn_share_runs(lb: Lockbeat, backend: Backend, calls: int, runs: int) -> None:
    await acquires(lb, 1, "warm")
    await lb.locks.release_all("warm")
    before = backend.calls("evalsha")["evalsha"]
    leases = await acquires(lb, calls)
    assert backend.calls("evalsha")["evalsha"] - before == runs
    assert [lease.key for lease in leases] == [f"k{n}" for n in range(calls)]
    assert len({lease.fence for lease in leases}) == calls


async def test_replies_find_their_callers_when_verbs_are_mixed(lb: Lockbeat) -> None:
    await acquires(lb, 30)
    verbs = [
        verb
        for n in range(30)
        for verb in (
            lb.locks.owner(f"k{n}"),
            lb.locks.is_locked(f"k{n + 15}"),
            lb.locks.renew(f"k{n}", "alice" if n % 2 else "bob", 9),
        )
    ]
    replies = await asyncio.gather(*verbs)
    assert replies[0::3] == ["alice"] * 30
    assert replies[1::3] == [n + 15 < 30 for n in range(30)]
    assert replies[2::3] == [bool(n % 2) for n in range(30)]


async def test_cancelling_one_of_a_batch_leaves_the_others(lb: Lockbeat) -> None:
    tasks = [asyncio.create_task(lb.locks.try_acquire(f"k{n}", "alice", 30)) for n in range(64)]
    await asyncio.sleep(0)
    for n in (0, 31, 63):
        tasks[n].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [n for n, result in enumerate(results) if isinstance(result, asyncio.CancelledError)] == [0, 31, 63]
    held = {lease.key for lease in await lb.locks.list()}
    assert held == {f"k{n}" for n in range(64)} - {"k0", "k31", "k63"}


async def test_an_error_of_one_script_leaves_the_others_of_the_turn(lb: Lockbeat, raw: Any) -> None:
    await lb.locks.try_acquire("held", "alice", 30)
    for shard in range(lb.store.shards):
        raw.set(Keys(lb.store.keys.namespace).key(shard, "fence"), "nonsense")
    results = await asyncio.gather(
        lb.locks.is_locked("held"),
        lb.locks.try_acquire("a", "alice", 30),
        lb.locks.try_acquire("b", "bob", 30),
        lb.locks.owner("held"),
        return_exceptions=True,
    )
    assert results[0] is True
    assert results[3] == "alice"
    assert isinstance(results[1], ScriptError)
    assert isinstance(results[2], ScriptError)
    assert results[1] is not results[2]  # a traceback each


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (hiredis.ReplyError("READONLY You can't write against a read only replica."), StoreUnavailable),
        (hiredis.ReplyError("LOADING Redis is loading the dataset in memory"), StoreUnavailable),
        (hiredis.ReplyError("MOVED 3999 127.0.0.1:6381"), StoreUnavailable),
        (hiredis.ReplyError("CLUSTERDOWN The cluster is down"), StoreUnavailable),
        (hiredis.ReplyError("BUSY Redis is busy running a script."), StoreUnavailable),
        (ConnectionResetError("reset"), StoreUnavailable),
        (hiredis.ReplyError("WRONGTYPE Operation against a key"), ScriptError),
        (hiredis.ReplyError("ERR user_script:3: attempt to index script: 0123"), ScriptError),
        (hiredis.ReplyError("LOCKBEAT_BAD what"), ScriptError),
        (hiredis.ReplyError("NOPERM this user has no permissions"), StoreError),
        (
            hiredis.ReplyError("ERR ACL failure in script: User x has no permissions to run the 'set' command script: 1"),
            StoreError,
        ),
        (hiredis.ReplyError("ERR The user executing the script can't run this command or subcommand script: 1"), StoreError),
        (hiredis.ReplyError("ERR unknown command 'EVALSHA', with args beginning with: '0123'"), StoreError),
        (hiredis.ReplyError("OOM command not allowed when used memory > 'maxmemory'."), StoreError),
        (redis.exceptions.ResponseError("WRONGTYPE Operation"), ScriptError),
    ],
)
def test_what_a_server_says_becomes_one_of_our_errors(problem: Exception, kind: type[StoreError]) -> None:
    error = error_of(problem)
    assert type(error) is kind
    assert str(error)


@REAL
@pytest.mark.parametrize("known", [True, False])
async def test_a_call_is_taken_back_after_it_ran_though_its_script_was_flushed(
    lb: Lockbeat, connect: Connect, raw: Any, known: bool
) -> None:
    """NOSCRIPT comes when the undoing has been sent, and has run: the script that heals must not leave an orphan."""
    async with connect() as other:
        if known:
            await other.locks.try_acquire("warm", "alice", 30)
        for _ in range(5):
            raw.script_flush()
            raw.script_load(load("lock/release").source)
            task = asyncio.create_task(other.locks.try_acquire("k", "alice", 30))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await other.locks.owner("k")  # behind whatever was sent again
            assert await other.locks.owner("k") is None


@REAL
async def test_the_socket_of_a_redis_py_connection_can_be_taken_over(backend: Backend) -> None:
    """redis-py has no public way to it: this pins the one we use."""
    connection: Any = redis.asyncio.Connection(host="127.0.0.1", port=backend.servers[0].port, protocol=2)
    await connection.connect()
    stream, transport = take_over(connection)
    assert not connection.is_connected
    assert transport.get_extra_info("peername")[1] == backend.servers[0].port
    heard = asyncio.get_running_loop().create_future()

    class Hear(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            heard.set_result(data)

    transport.set_protocol(Hear())
    transport.write(b"PING\r\n")
    assert await heard == b"+PONG\r\n"
    transport.abort()
    assert stream.transport is transport


@REAL
async def test_plain_commands_travel_in_order_with_the_scripts(lb: Lockbeat) -> None:
    wire = lb.store.wire(0)
    acquired = asyncio.create_task(lb.locks.try_acquire("k", "alice", 30))
    await asyncio.sleep(0)
    key = Keys(lb.store.keys.namespace).key(0, "lock")
    assert await wire.command("HEXISTS", key, "k") == 1
    assert await wire.command("PING") == b"PONG"
    await acquired


async def test_a_server_that_hangs_counts_as_away_after_the_timeout(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=1) as lb:
        await lb.locks.try_acquire("k", "alice", 30)
        server.freeze()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await lb.locks.owner("k")
        assert time.monotonic() - began >= 0.3
        server.thaw()
        assert await lb.locks.owner("k") == "alice"


async def test_a_server_that_was_restarted_is_found_again(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=30) as lb:
        assert await lb.locks.try_acquire("k", "alice", 30)
        await asyncio.to_thread(server.restart)
        assert await lb.locks.owner("k") is None  # this server keeps nothing
        assert await lb.locks.try_acquire("k", "bob", 30)


async def test_calls_made_while_the_server_is_away_wait_for_it(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace, timeout=30) as lb:
        await asyncio.to_thread(server.kill)
        calls = asyncio.gather(*(lb.locks.try_acquire(f"k{n}", "alice", 30) for n in range(20)))
        await asyncio.to_thread(server.restart)
        assert all(await calls)


@pytest.fixture
async def babel() -> AsyncIterator[int]:
    """The port of a server that greets like Redis, and then speaks something else."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def test_a_server_of_another_protocol_is_an_error_and_no_hang(babel: int) -> None:
    async def connect() -> Any:
        made: Any = redis.asyncio.Connection(host="127.0.0.1", port=babel, protocol=2)
        made._reader, made._writer = await asyncio.open_connection("127.0.0.1", babel)
        return made

    wire = Wire(connect, 1.0)
    with pytest.raises(StoreUnavailable, match="protocol"):
        await wire.command("PING")
    await wire.aclose()


async def test_closing_waits_for_what_is_on_its_way(lb: Lockbeat, connect: Connect) -> None:
    """The undoing of a cancelled call reaches the server though the client is closed at once."""
    for turns in (1, 2, 3):
        async with connect() as other:
            await other.locks.is_locked("k")
            task = asyncio.create_task(other.locks.try_acquire("k", "alice", 30))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not await lb.locks.is_locked("k")


async def test_a_closed_client_says_so_at_once(connect: Connect) -> None:
    async with connect(timeout=60) as lb:
        locks = lb.locks
    with pytest.raises(StoreError, match="closed"):
        await locks.is_locked("k")


async def test_nothing_is_sent_while_nothing_is_asked(server: Server, namespace: str) -> None:
    async with Lockbeat(server.url, namespace=namespace) as lb:
        await lb.locks.try_acquire("k", "alice", 30)

        def processed() -> int:
            info = str(server.call("INFO", "commandstats"))
            return sum(int(line.partition(":calls=")[2].partition(",")[0]) for line in info.splitlines() if "evalsha" in line)

        before = processed()
        await asyncio.sleep(0.3)
        assert processed() == before


async def test_memory_calls_never_overtake_each_other(namespace: str) -> None:
    async with Lockbeat(f"memory://{namespace}", namespace=namespace) as lb:
        wire = lb.store.wire(0)
        order: list[str] = []
        for n in range(20):
            row = lb.store.row["lock/is_locked"](key=str(n))
            future = wire.command("ECHO", str(n)) if n % 2 else lb.store.submit(row, 0, last=True)
            future.add_done_callback(lambda _, n=n: order.append(str(n)))  # type: ignore[misc]
        await wait_until(lambda: len(order) == 20, "all are answered")
        assert order == [str(n) for n in range(20)]


async def test_what_a_line_that_was_given_up_has_not_delivered_is_never_executed() -> None:
    """The peer is told of a reset: no kernel goes on sending requests that were made again over another line."""
    ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1 << 16):
                pass
            ended.set_result("closed")
        except ConnectionError as reset:
            ended.set_result(reset)
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as peer:

        async def connect() -> Any:
            reader, writer = await asyncio.open_connection("127.0.0.1", peer.sockets[0].getsockname()[1])
            return SimpleNamespace(_reader=reader, _writer=writer)

        wire = Wire(connect, 0.2)
        with pytest.raises(StoreUnavailable):
            await wire.command("PING")
        assert isinstance(await asyncio.wait_for(ended, PATIENCE), ConnectionResetError)
        await wire.aclose()
