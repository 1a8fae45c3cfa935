"""What a store URL means, and what is refused: tables, no server."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbeat.connection import Address, parse_url
from lockbeat.errors import InvalidURL

SECRET = "s3cr3t"  # noqa: S105 - what must not be seen again

UNDERSTOOD: list[tuple[str, dict[str, Any]]] = [
    ("redis://host", {"kind": "standalone", "nodes": (("host", 6379),), "db": 0, "tls": False}),
    ("redis://host:7000/3", {"nodes": (("host", 7000),), "db": 3}),
    ("redis://host/?db=4", {"db": 4}),
    ("redis://host:7000/", {"db": 0}),
    ("  redis://host  ", {"nodes": (("host", 6379),)}),
    ("REDIS://host", {"scheme": "redis"}),
    ("redis://:pw@host", {"username": None, "password": "pw"}),
    ("redis://user@host", {"username": "user", "password": None}),
    ("redis://user:p%40%2Fw@host", {"username": "user", "password": "p@/w"}),
    ("redis://user:p@w@host", {"username": "user", "password": "p@w"}),
    ("redis://host?username=u&password=p", {"username": "u", "password": "p"}),
    ("redis://[::1]:7000/1", {"nodes": (("::1", 7000),), "db": 1}),
    ("redis://[fe80::1]", {"nodes": (("fe80::1", 6379),)}),
    ("redis://host?socket_timeout=2.5", {"options": {"socket_timeout": 2.5}}),
    (
        "redis://host?socket_keepalive=no&client_name=me",
        {"options": {"socket_keepalive": False, "client_name": "me"}},
    ),
    ("rediss://host", {"kind": "standalone", "tls": True}),
    (
        "rediss://host?ssl_cert_reqs=none&ssl_ca_certs=%2Fca.pem&ssl_check_hostname=false",
        {"options": {"ssl_cert_reqs": "none", "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}},
    ),
    *(
        (f"rediss://host?ssl_cert_reqs={text}", {"options": {"ssl_cert_reqs": wanted}})
        for wanted, texts in {
            "none": ("CERT_NONE", "ssl.CERT_NONE", "cert_none", "None", "0"),
            "optional": ("CERT_OPTIONAL", "Optional", "1"),
            "required": ("CERT_REQUIRED", "ssl.CERT_REQUIRED", "2"),
        }.items()
        for text in texts
    ),
    *(
        (f"rediss://host?ssl_min_version={text}", {"options": {"ssl_min_version": number}})
        for number, texts in {771: ("771", "1.2", "TLSv1.2", "TLSv1_2", "TLSVersion.TLSv1_2"), 772: ("772", "TLSv1.3")}.items()
        for text in texts
    ),
    ("redis://host/2?db=2", {"db": 2}),
    ("valkey://host", {"scheme": "redis", "kind": "standalone"}),
    ("valkeys://host", {"scheme": "rediss", "tls": True}),
    ("unix:///run/redis.sock", {"kind": "standalone", "path": "/run/redis.sock", "nodes": ()}),
    ("unix:///run/my%20redis.sock?db=2", {"path": "/run/my redis.sock", "db": 2}),
    ("unix://user:pw@/run/redis.sock", {"path": "/run/redis.sock", "username": "user", "password": "pw"}),
    ("unix:///run/a@b.sock", {"path": "/run/a@b.sock", "username": None}),
    (
        "redis+sentinel://h1,h2:2/main",
        {"kind": "sentinel", "nodes": (("h1", 26379), ("h2", 2)), "service": "main", "db": 0},
    ),
    ("redis+sentinel://u:p@h1:1,h2:2/main/5", {"service": "main", "db": 5, "username": "u", "password": "p"}),
    (
        "redis+sentinel://h/main?sentinel_username=su&sentinel_password=sp",
        {"sentinel_username": "su", "sentinel_password": "sp", "options": {}},
    ),
    ("rediss+sentinel://h/main", {"kind": "sentinel", "tls": True, "sentinel_tls": True}),
    ("rediss+sentinel://h/main?sentinel_ssl=no", {"tls": True, "sentinel_tls": False}),
    (
        "redis+sentinel://h/main?sentinel_ssl=yes&ssl_ca_certs=/ca",
        {"tls": False, "sentinel_tls": True, "options": {"ssl_ca_certs": "/ca"}},
    ),
    ("rediss://h", {"tls": True, "sentinel_tls": False}),
    ("rediss+cluster://h?ssl_ciphers=HIGH", {"kind": "cluster", "tls": True, "options": {"ssl_ciphers": "HIGH"}}),
    ("valkey+sentinel://h/main", {"kind": "sentinel", "scheme": "redis+sentinel"}),
    ("redis+cluster://h", {"kind": "cluster", "nodes": (("h", 6379),)}),
    ("redis+cluster://u:p@h1:1,h2:2/0", {"nodes": (("h1", 1), ("h2", 2)), "password": "p"}),
    ("rediss+cluster://h?ssl_cert_reqs=optional", {"tls": True, "options": {"ssl_cert_reqs": "optional"}}),
    ("valkeys+cluster://h", {"kind": "cluster", "scheme": "rediss+cluster", "tls": True}),
    ("embedded://", {"kind": "embedded", "path": None, "persist": True}),
    ("embedded:///var/lib/app", {"path": "/var/lib/app"}),
    ("embedded://relative/dir", {"path": "relative/dir"}),
    ("embedded://~/store", {"path": "~/store"}),
    ("embedded:///var/with%20space?persist=no", {"path": "/var/with space", "persist": False}),
    ("memory://", {"kind": "memory", "name": None}),
    ("memory://orders", {"kind": "memory", "name": "orders"}),
]


@pytest.mark.parametrize(("url", "expected"), UNDERSTOOD, ids=[url for url, _ in UNDERSTOOD])
def test_a_url_is_understood(url: str, expected: dict[str, Any]) -> None:
    address = parse_url(url)
    assert {name: getattr(address, name) for name in expected} == expected


REFUSED: list[tuple[str, str]] = [
    ("", "no scheme"),
    ("localhost:6379", "no scheme"),
    ("http://host", "no such scheme"),
    ("redis+unknown://host", "no such scheme"),
    ("redis://", "no host"),
    ("redis:///0", "no host"),
    ("redis://:6379", "no host"),
    ("redis://a,b", "several hosts"),
    ("redis://host:0", "port"),
    ("redis://host:", "port"),
    ("redis://host:65536", "port"),
    ("redis://host:١٢", "port"),
    ("redis://host:12345678901234567890", "port"),
    ("redis://::1:6379", "IPv6"),
    ("redis://[::1", "bracket"),
    ("redis://host/x", "database"),
    ("redis://host/-1", "database"),
    ("redis://host?db=x", "database"),
    ("redis://host/0/1", "path"),
    ("redis://host/1?db=2", "two databases"),
    ("redis://host/0?db=2", "two databases"),
    ("redis+sentinel://h/main/1?db=2", "two databases"),
    ("redis://u@host?username=v", "twice"),
    ("redis://u:p@host?password=q", "twice"),
    ("rediss://host?ssl_cert_reqs=3", "ssl_cert_reqs"),
    ("rediss://host?ssl_min_version=1.0", "ssl_min_version"),
    ("rediss://host?ssl_min_version=7", "ssl_min_version"),
    ("redis://host/0#x", "percent-encode"),
    ("redis://ho st", "white space"),
    ("redis://host?ssl_cert_reqs=none", "rediss://"),
    ("rediss://host?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
    ("rediss://host?ssl_check_hostname=perhaps", "ssl_check_hostname"),
    ("redis://host?decode_responses=true", "option"),
    ("redis://host?max_connections=9", "option"),
    ("redis://host?socket_timeout=nan", "socket_timeout"),
    ("redis://host?socket_timeout=1&socket_timeout=2", "twice"),
    ("redis://host?flag", "NAME=VALUE"),
    ("redis://host?sentinel_password=x", "sentinel_"),
    ("redis://host?sentinel_ssl=yes", "sentinel_"),
    ("redis+sentinel://h/main?sentinel_ssl=perhaps", "sentinel_ssl"),
    ("redis+sentinel://h/main?sentinel_ssl=no&ssl_ca_certs=/ca", "ssl_ca_certs, which needs"),
    ("redis+sentinel://h1:1", "no service"),
    ("redis+sentinel://h1:1/", "no service"),
    ("redis+sentinel:///main", "no host"),
    ("redis+sentinel://h1,,h2/main", "no host"),
    ("redis+sentinel://h1/main/x", "database"),
    ("redis+sentinel://h1/main/1/2", "path"),
    ("redis+cluster://", "no host"),
    ("redis+cluster://h/1", "database other than 0"),
    ("redis+cluster://h?db=2", "database other than 0"),
    ("unix://", "no socket"),
    ("unix://relative.sock", "no socket"),
    ("unix:///s.sock?db=x", "database"),
    ("embedded:///a?persist=perhaps", "persist"),
    ("embedded:///a?other=1", "options"),
    ("embedded:///a%00b", "NUL"),
    ("memory://a/b", "path"),
    ("memory://a?db=1", "options"),
]


@pytest.mark.parametrize(("url", "problem"), REFUSED, ids=[url or "empty" for url, _ in REFUSED])
def test_what_is_wrong_with_a_url_is_named_in_one_line(url: str, problem: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_url(url)
    assert caught.value.argument == "url"
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@host:6379/1",
        f"redis://:{SECRET}@host",
        f"redis://host?password={SECRET}",
        f"rediss://host?ssl_password={SECRET}",
        f"redis+sentinel://u:{SECRET}@h1,h2/main/2?sentinel_password={SECRET}",
        f"redis+cluster://u:{SECRET}@h1",
        f"unix://u:{SECRET}@/run/redis.sock?db=1",
    ],
)
def test_a_password_is_masked_wherever_an_address_is_shown(url: str) -> None:
    address = parse_url(url)
    assert SECRET not in address.safe + str(address) + repr(address)
    assert "***" in address.safe or "sentinel_password" in url


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}/{SECRET}@host",
        f"redis://user:{SECRET}?{SECRET}@host",
        f"redis://user:{SECRET}?a={SECRET}@host",
        f"redis://user:{SECRET}#{SECRET}@host",
        f"redis://user:{SECRET} {SECRET}@host",
        f"redis://user:{SECRET}@host:port",
        f"redis://user:{SECRET}@host/db",
        f"redis://user:{SECRET}",
        f"redis://host?password={SECRET}&unknown=1",
        f"http://user:{SECRET}@host",
        f"user:{SECRET}@host",
        f"redis+sentinel://user:{SECRET}@host",
        f"redis+cluster://user:{SECRET}@host/1",
        f"memory://user:{SECRET}@host",
        f"embedded:///path?password={SECRET}",
    ],
)
def test_an_error_never_repeats_a_password(url: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_url(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


def test_without_a_url_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBEAT_URL", "redis://from-env:1/2")
    assert parse_url(None).nodes == (("from-env", 1),)
    assert parse_url("redis://given").nodes == (("given", 6379),)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_url_and_environment_the_store_is_embedded(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("LOCKBEAT_URL", raising=False)
    else:
        monkeypatch.setenv("LOCKBEAT_URL", value)
    assert parse_url(None) == Address(kind="embedded", scheme="embedded", safe="embedded://")


def test_a_wrong_url_from_the_environment_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBEAT_URL", "nonsense")
    with pytest.raises(InvalidURL, match="LOCKBEAT_URL"):
        parse_url(None)


def test_a_url_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidURL, match="bytes"):
        parse_url(b"redis://host")  # type: ignore[arg-type]


@pytest.mark.parametrize("url", [url for url, _ in UNDERSTOOD if "@" not in url and "password" not in url])
def test_the_safe_form_of_a_url_without_secrets_means_the_same(url: str) -> None:
    address = parse_url(url)
    assert parse_url(address.safe) == address


@given(st.text(max_size=60))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    for url in (text, f"redis://{text}", f"redis+sentinel://{text}", f"embedded://{text}", f"unix://{text}"):
        with contextlib.suppress(InvalidURL):
            assert parse_url(url).safe


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_percent_encoded_credentials_come_back_as_they_were(username: str, password: str) -> None:
    address = parse_url(f"redis://{quote(username, safe='')}:{quote(password, safe='')}@host")
    assert (address.username, address.password) == (username, password)
