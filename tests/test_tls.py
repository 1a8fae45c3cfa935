"""TLS with a CA of our own: what works, and how each mistake in a URL is named."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from lockbeat import Lockbeat, StoreUnavailable
from lockbeat.connection import Connector
from lockbeat.errors import InvalidURL
from tests import servers
from tests.conftest import needs

pytestmark = [needs("redis"), pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH")]

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
CA = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]  # which Python asks for from 3.13 on


def openssl(directory: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)


def ca(directory: Path, name: str) -> None:
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    openssl(directory, "req", "-x509", *EC, "-days", "30", "-subj", f"/CN={name}", *CA, *files)


def signed(directory: Path, name: str, names: str) -> None:
    openssl(directory, "req", *EC, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (directory / "names").write_text(f"subjectAltName={names}")
    by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names"]
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.pem")


@dataclass
class Tls:
    """A server with a plain port, and one that speaks TLS; and one that wants a client's certificate."""

    files: Path
    plain: int
    port: int
    strict: int

    def url(self, text: str) -> str:
        """PLAIN, SECURE and STRICT are the ports, FILES is where the certificates are."""
        for word, value in {"PLAIN": self.plain, "SECURE": self.port, "STRICT": self.strict, "FILES": self.files}.items():
            text = text.replace(word, str(value))
        return text


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    files = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other"):
        ca(files, name)
    signed(files, "server", "DNS:localhost,IP:127.0.0.1")
    signed(files, "elsewhere", "DNS:elsewhere.example")
    signed(files, "named", "DNS:localhost")
    signed(files, "client", "DNS:client")
    (files / "text.pem").write_text("no certificate")
    openssl(files, "ec", "-in", "client.key", "-aes256", "-passout", "pass:s3cret", "-out", "locked.key")
    binary = servers.redis_binary() or ""

    def settings(port: int, certificate: str, clients: str) -> list[str]:
        named = [f"tls-cert-file {files}/{certificate}.pem", f"tls-key-file {files}/{certificate}.key"]
        return [f"tls-port {port}", *named, f"tls-ca-cert-file {files}/ca.pem", f"tls-auth-clients {clients}"]

    ports = servers.free_port(), servers.free_port()
    with (
        servers.standalone(binary, extra=settings(ports[0], "server", "no")) as open_to_all,
        servers.standalone(binary, extra=settings(ports[1], "server", "yes")),
    ):
        yield Tls(files, open_to_all.port, *ports)


WORKS = [
    "rediss://127.0.0.1:SECURE?ssl_ca_certs=FILES/ca.pem",
    "rediss://localhost:SECURE/1?ssl_ca_certs=FILES/ca.pem&ssl_cert_reqs=CERT_REQUIRED&ssl_min_version=TLSv1_2",
    "rediss://127.0.0.1:SECURE?ssl_cert_reqs=CERT_NONE",
    "rediss://127.0.0.1:SECURE?ssl_cert_reqs=ssl.CERT_NONE&ssl_check_hostname=yes",
    "rediss://127.0.0.1:STRICT?ssl_ca_certs=FILES/ca.pem&ssl_certfile=FILES/client.pem&ssl_keyfile=FILES/client.key",
]


@pytest.mark.parametrize("url", WORKS)
async def test_a_store_is_reached_over_tls(tls: Tls, url: str) -> None:
    async with Lockbeat(tls.url(url), namespace="tls") as lb:
        assert await lb.locks.try_acquire("k", "me", 5)
        assert await lb.locks.release("k", "me")


@pytest.mark.parametrize(("primary", "theirs"), [(True, False), (False, True), (True, True)])
async def test_sentinels_and_what_they_watch_may_speak_tls_apart(tls: Tls, tmp_path: Path, primary: bool, theirs: bool) -> None:
    named = [f"tls-cert-file {tls.files}/server.pem", f"tls-key-file {tls.files}/server.key"]
    secure = servers.free_port()
    settings = [
        *("port PORT", "bind 127.0.0.1", "dir .", f"sentinel monitor main 127.0.0.1 {tls.port if primary else tls.plain} 1"),
        *(f"tls-port {secure}", *named, f"tls-ca-cert-file {tls.files}/ca.pem", "tls-auth-clients no"),
    ]
    sentinel = servers.Server(servers.redis_binary() or "", tmp_path / "sentinel", settings, mode="--sentinel")
    try:
        sentinel.start()
        apart = f"&sentinel_ssl={'yes' if theirs else 'no'}" if primary != theirs else ""
        port = secure if theirs else sentinel.port
        url = f"redis{'s' * primary}+sentinel://127.0.0.1:{port}/main?ssl_ca_certs={tls.files}/ca.pem{apart}"
        async with Lockbeat(url) as lb:
            assert await lb.store.server_time() > 0
    finally:
        sentinel.kill()


async def test_a_name_that_is_looked_up_without_the_event_loop_is_the_one_that_the_certificate_is_for(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a thread that outlives the main one (apscheduler#632): by then asyncio looks no name up."""
    monkeypatch.setattr("lockbeat.connection._connector.has_executors", lambda: False)
    with pytest.raises(StoreUnavailable, match=r"nowhere\.invalid"):
        async with Lockbeat(tls.url("rediss://nowhere.invalid:SECURE?ssl_ca_certs=FILES/ca.pem"), timeout=1):
            pass
    files, port = tls.files, servers.free_port()
    named = [f"tls-cert-file {files}/named.pem", f"tls-key-file {files}/named.key", f"tls-ca-cert-file {files}/ca.pem"]
    with servers.standalone(servers.redis_binary() or "", extra=[f"tls-port {port}", *named, "tls-auth-clients no"]):
        async with Lockbeat(f"rediss://localhost:{port}?ssl_ca_certs={files}/ca.pem") as lb:
            assert await lb.store.server_time() > 0


async def test_a_server_that_is_killed_with_a_call_on_its_way_is_used_again_once_it_is_back(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    """As redis-rs#549: a connection over TLS that is lost has no socket any more, and nobody was told of the loss, for ever."""
    files, port = tls.files, servers.free_port()
    named = [f"tls-cert-file {files}/server.pem", f"tls-key-file {files}/server.key", f"tls-ca-cert-file {files}/ca.pem"]
    with servers.standalone(servers.redis_binary() or "", extra=[f"tls-port {port}", *named, "tls-auth-clients no"]) as mortal:
        async with Lockbeat(f"rediss://127.0.0.1:{port}?ssl_ca_certs={files}/ca.pem", timeout=60) as lb:
            assert await lb.locks.try_acquire("k", "me", 60)
            mortal.freeze()
            calls = [asyncio.ensure_future(lb.locks.try_acquire("k", "me", 60)), asyncio.ensure_future(lb.store.server_time())]
            await asyncio.wait(calls, timeout=0.2)
            await asyncio.to_thread(mortal.restart)
            async with asyncio.timeout(60):
                await asyncio.gather(*calls)
                assert await lb.locks.owner("k") == "me"
    assert "Exception in callback" not in caplog.text


MISTAKES = [
    ("redis://127.0.0.1:SECURE", "write rediss://"),
    ("rediss://127.0.0.1:PLAIN?ssl_ca_certs=FILES/ca.pem", "write redis://"),
    ("rediss://127.0.0.1:SECURE", "ssl_ca_certs="),
    ("rediss://127.0.0.1:SECURE?ssl_ca_certs=FILES/other.pem", "the CA in FILES/other.pem did not sign it"),
    ("rediss://127.0.0.1:STRICT?ssl_ca_certs=FILES/ca.pem", "ssl_certfile="),
]


@pytest.mark.parametrize(("url", "says"), MISTAKES, ids=[url for url, _ in MISTAKES])
async def test_a_url_that_does_not_fit_the_port_is_told_what_to_write(tls: Tls, url: str, says: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        # Twice what one try of connecting may take, which is what says why; the others are told at once, at each try.
        async with Lockbeat(tls.url(url), timeout=10 if "PLAIN" in url else 2):
            pass
    assert tls.url(says) in str(caught.value)


FILES = [
    ("ssl_ca_certs=FILES/nothere.pem", "ssl_ca_certs 'FILES/nothere.pem' can't be used"),
    ("ssl_ca_certs=FILES/text.pem", "ssl_ca_certs 'FILES/text.pem' can't be used"),
    ("ssl_ca_certs=FILES", "ssl_ca_certs 'FILES' can't be used"),
    ("ssl_ca_data=text", "ssl_ca_data can't be used"),
    (
        "ssl_certfile=FILES/nothere.pem&ssl_keyfile=FILES/client.key",
        "ssl_certfile 'FILES/nothere.pem' can't be used",
    ),
    (
        "ssl_certfile=FILES/client.pem&ssl_keyfile=FILES/nothere.key",
        "ssl_keyfile 'FILES/nothere.key' can't be used",
    ),
    (
        "ssl_certfile=FILES/client.pem&ssl_keyfile=FILES/server.key",
        "ssl_keyfile 'FILES/server.key' can't be used",
    ),
    ("ssl_certfile=FILES/client.pem", "without an ssl_keyfile can't be used"),
    ("ssl_certfile=FILES/client.pem&ssl_keyfile=FILES/locked.key", "the key needs a password: ssl_password"),
    (
        "ssl_certfile=FILES/client.pem&ssl_keyfile=FILES/locked.key&ssl_password=other",
        "ssl_keyfile 'FILES/locked.key', with this ssl_password, can't be used",
    ),
    ("ssl_ciphers=NOSUCH", "ssl_ciphers 'NOSUCH' can't be used"),
    ("ssl_keyfile=FILES/client.key", "ssl_keyfile without ssl_certfile"),
]


@pytest.mark.parametrize(("options", "says"), FILES, ids=[options for options, _ in FILES])
async def test_a_file_that_can_not_be_used_is_named_before_anything_is_sent(tls: Tls, options: str, says: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        await Connector.open(tls.url(f"rediss://127.0.0.1:1?{options}"))
    assert tls.url(says) in str(caught.value)


async def test_a_cluster_is_reached_over_tls_with_a_key_that_has_a_password(tls: Tls) -> None:
    files, port = tls.files, servers.free_port()
    named = [f"tls-cert-file {files}/server.pem", f"tls-key-file {files}/server.key", f"tls-ca-cert-file {files}/ca.pem"]
    extra = [f"tls-port {port}", *named, "tls-auth-clients yes", "tls-cluster yes"]
    ours = f"ssl_certfile={files}/client.pem&ssl_keyfile={files}/locked.key&ssl_password=s3cret"
    with servers.cluster(servers.redis_binary() or "", nodes=1, extra=extra):
        async with Lockbeat(f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={files}/ca.pem&{ours}") as lb:
            assert await lb.store.server_time() > 0


async def test_what_a_server_refuses_of_tls_is_told_as_what_it_is(tls: Tls) -> None:
    files, port = tls.files, servers.free_port()
    named = [f"tls-cert-file {files}/server.pem", f"tls-key-file {files}/server.key", f"tls-ca-cert-file {files}/ca.pem"]
    with servers.standalone(
        servers.redis_binary() or "", extra=[f"tls-port {port}", *named, "tls-auth-clients no", "tls-protocols TLSv1.2"]
    ):
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={files}/ca.pem"
        with pytest.raises(StoreUnavailable, match="no version of TLS that we do: ssl_min_version="):
            async with Lockbeat(f"{url}&ssl_min_version=1.3", timeout=1):
                pass
    ca(files, "mortal")
    connector = await Connector.open(tls.url("rediss://127.0.0.1:SECURE?ssl_ca_certs=FILES/mortal.pem"))
    (files / "mortal.pem").unlink()
    with pytest.raises(redis.ConnectionError, match="a file that its ssl_ options name is there no more"):
        await connector.dedicated_for_key("k")


async def test_a_certificate_for_another_name_says_so(tls: Tls, tmp_path: Path) -> None:
    files, port = tls.files, servers.free_port()
    named = [f"tls-cert-file {files}/elsewhere.pem", f"tls-key-file {files}/elsewhere.key", f"tls-ca-cert-file {files}/ca.pem"]
    with servers.standalone(servers.redis_binary() or "", extra=[f"tls-port {port}", *named, "tls-auth-clients no"]):
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={files}/ca.pem"
        with pytest.raises(StoreUnavailable, match="certificate is for another name"):
            async with Lockbeat(url, timeout=1):
                pass
        async with Lockbeat(f"{url}&ssl_check_hostname=no") as lb:
            assert await lb.store.server_time() > 0
