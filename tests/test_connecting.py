"""What is refused while connecting: what is no reason not to work, what is told at once, and by which name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from lockbeat import Beat, InvalidArgument, Lockbeat, StoreUnavailable
from lockbeat.errors import InvalidType, ScriptError, StoreError
from lockbeat.store.replies import error_of
from tests import servers
from tests.conftest import Backend, chosen, needs, only
from tests.servers import Server

FULL = "~* &* +@all"
ACL = [
    f"user nameless on >pw {FULL} -client",
    f"user nodb on >pw {FULL} -select",
    f"user noslots on >pw {FULL} -cluster",
    f"user fine on >pw {FULL}",
]


@pytest.fixture(params=chosen("valkey", "redis"), scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    binary = servers.valkey_binary() if request.param == "valkey" else servers.redis_binary()
    with servers.standalone(binary or "", acl=ACL) as started:
        yield started


def url(server: Server, user: str, rest: str = "") -> str:
    return f"redis://{user}:pw@127.0.0.1:{server.port}{rest}"


async def test_a_refused_client_name_is_no_reason_not_to_work(server: Server) -> None:
    async with Lockbeat(url(server, "nameless", "?client_name=mine"), timeout=2) as lb, lb.lock("k", ttl=5, wait=1) as lease:
        assert await lb.locks.owner("k") == lease.owner
        waiting = asyncio.ensure_future(lb.lock("k", ttl=5, wait=0).__aenter__())
        assert await asyncio.gather(waiting, return_exceptions=True)


async def test_the_client_name_is_given_where_it_may_be(server: Server) -> None:
    async with Lockbeat(url(server, "fine", "?client_name=mine")) as lb:
        assert await lb.store.server_time() > 0
        assert "name=mine " in str(server.call("CLIENT", "LIST"))


@pytest.mark.parametrize(("user", "rest", "command"), [("nodb", "/1", "select")])
async def test_a_command_that_is_denied_while_connecting_is_named_at_once(
    server: Server, user: str, rest: str, command: str
) -> None:
    with pytest.raises(StoreError, match=f"(?i)'{command}") as caught:
        async with asyncio.timeout(20), Lockbeat(url(server, user, rest), timeout=30):
            pass
    assert not isinstance(caught.value, StoreUnavailable)


@needs("valkey")
async def test_a_cluster_node_that_denies_cluster_slots_says_so_at_once() -> None:
    with servers.standalone(servers.valkey_binary(), acl=ACL) as lonely:
        there = url(lonely, "noslots").replace("redis://", "redis+cluster://")
        with pytest.raises(StoreError, match=r"(?i)'cluster") as caught:
            async with asyncio.timeout(20), Lockbeat(there, timeout=30):
                pass
        assert not isinstance(caught.value, StoreUnavailable)


class Counting(CredentialProvider):
    """A new password each time it is asked, as a cloud's tokens are; or an error."""

    def __init__(self, *passwords: str | Exception) -> None:
        self.passwords = list(passwords)
        self.asked = 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        password = self.passwords.pop(0) if len(self.passwords) > 1 else self.passwords[0]
        if isinstance(password, Exception):
            raise password
        return "fine", password


class Duck:
    """Has the method, and is of no class of redis-py's."""

    def get_credentials(self) -> tuple[str, str]:
        return "fine", "pw"


async def test_a_credential_provider_is_asked_for_each_connection(server: Server) -> None:
    provider, plain = Counting("pw"), f"redis://127.0.0.1:{server.port}"
    async with Lockbeat(plain, credential_provider=provider) as lb:
        async with lb.lock("k", ttl=5):
            assert "user=fine " in str(server.call("CLIENT", "LIST"))
        before = provider.asked
        server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await lb.store.server_time() > 0
        assert provider.asked > before
    beat = Beat(plain, credential_provider=Duck())
    async with beat.lifespan():
        assert await beat.jobs.list() is not None
    async with Lockbeat(plain, credential_provider=UsernamePasswordCredentialProvider("fine", "pw")) as lb:
        assert await lb.store.server_time() > 0


async def test_a_provider_that_fails_is_asked_again_and_named(server: Server) -> None:
    plain, cause = f"redis://127.0.0.1:{server.port}", RuntimeError("no token yet")
    async with Lockbeat(plain, credential_provider=Counting(cause, "pw"), timeout=5) as lb:
        assert await lb.store.server_time() > 0
    with pytest.raises(StoreUnavailable, match="credential_provider: RuntimeError: no token yet"):
        async with Lockbeat(plain, credential_provider=Counting(cause), timeout=0.5):
            pass
    with pytest.raises(StoreError, match="invalid username-password"):
        async with Lockbeat(plain, credential_provider=Counting("wrong"), timeout=30):
            pass


async def test_a_provider_that_can_not_be_one_or_is_too_much_is_refused() -> None:
    for make in (Lockbeat, Beat):
        with pytest.raises(InvalidType, match="credential_provider"):
            make("redis://h", credential_provider="token")
    with pytest.raises(InvalidArgument, match="credential_provider"):
        async with Lockbeat("redis://u:p@127.0.0.1:1", credential_provider=Duck()):
            pass
    async with Lockbeat("memory://", credential_provider=Duck()) as lb:
        assert await lb.store.server_time() > 0


@needs("valkey")
async def test_a_server_that_can_not_save_is_a_store_error(tmp_path: Path) -> None:
    extra = ["save 3600 1", "stop-writes-on-bgsave-error yes", f"dir {tmp_path}", "rdb-del-sync-files no"]
    with servers.standalone(servers.valkey_binary(), extra=extra) as full:
        async with Lockbeat(full.url) as lb:
            assert await lb.locks.try_acquire("k", "me", 5)
            (tmp_path / "dump.rdb").mkdir()
            full.call("BGSAVE")
            servers.wait_until(
                lambda: (
                    "rdb_last_bgsave_status:err" in str(full.call("INFO", "persistence"))
                    or full.client().info("persistence")["rdb_last_bgsave_status"] == "err"
                ),
                "the save has failed",
            )
            with pytest.raises(StoreError, match="MISCONF") as caught:
                await lb.locks.try_acquire("other", "me", 5)
            assert type(caught.value) is StoreError


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("MISCONF Errors writing to the AOF file: No space left on device script: 0d, on @user_script:1.", StoreError),
        ("ERR This Redis command is not allowed from script script: 0d, on @user_script:12.", StoreError),
        ("ERR Lua scripts without any input keys are not supported", StoreError),
        ("ERR Unknown Redis command called from script script: 0d", StoreError),
        ("ERR something else script: 0d", ScriptError),
    ],
)
def test_what_a_server_says_of_itself_is_no_fault_of_a_script(said: str, kind: Any) -> None:
    import hiredis

    assert type(error_of(hiredis.ReplyError(said))) is kind


async def never_a_store(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers as a web server does."""
    with contextlib.suppress(OSError):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("redis://fine:pw@127.0.0.1:{port}/16", "DB index is out of range: it has no database 16"),
        ("redis://fine:no@127.0.0.1:{port}", "invalid username-password pair"),
        ("redis+cluster://fine:pw@127.0.0.1:{port}", "it is of no Cluster; write redis://"),
        ("redis+sentinel://127.0.0.1:{port}/service?sentinel_username=fine&sentinel_password=pw", "it is none, write redis://"),
    ],
)
async def test_a_server_that_is_not_what_the_url_says_is_told_of_at_once(server: Server, there: str, says: str) -> None:
    """It counted as a store that is away: it was tried again for as long as anybody waited."""
    await fails_at_once(there.format(port=server.port), says)


async def test_where_another_node_may_answer_by_the_next_try_it_is_tried(server: Server) -> None:
    """One of two is none of a Cluster, and the other is away."""
    there = f"redis+cluster://fine:pw@127.0.0.1:{server.port},127.0.0.1:1"
    with pytest.raises(StoreUnavailable, match="no cluster node could be asked"):
        async with Lockbeat(there, timeout=0.5):
            pass


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_what_does_not_speak_redis_protocol_is_told_of_at_once(scheme: str) -> None:
    async with await asyncio.start_server(never_a_store, "127.0.0.1", 0) as web:
        port = web.sockets[0].getsockname()[1]
        await fails_at_once(f"{scheme}://127.0.0.1:{port}", "what answers there does not speak the protocol of Redis")


async def test_a_server_without_tls_is_told_of_at_once() -> None:
    async with await asyncio.start_server(never_a_store, "127.0.0.1", 0) as web:
        port = web.sockets[0].getsockname()[1]
        await fails_at_once(f"rediss://127.0.0.1:{port}", r"no TLS is spoken there.*write redis://")


async def fails_at_once(there: str, says: str) -> None:
    """Not by its timeout, which is a minute."""
    with pytest.raises(StoreError, match=says) as caught:
        async with asyncio.timeout(40), Lockbeat(there, timeout=60):
            pass
    assert not isinstance(caught.value, StoreUnavailable)


@only("cluster")
async def test_one_node_of_a_cluster_is_told_of_at_once(backend: Backend) -> None:
    """It would send us elsewhere for ever."""
    refused = list[StoreError]()
    for node in backend.url.removeprefix("redis+cluster://").split(","):
        try:
            async with asyncio.timeout(40), Lockbeat(f"redis://{node}", timeout=60):
                pass  # it has the slot
        except StoreError as problem:
            refused.append(problem)
    assert {type(problem) for problem in refused} == {StoreError}
    assert {str(problem) for problem in refused} == {"it is a node of a Cluster; write redis+cluster://HOST:PORT"}
