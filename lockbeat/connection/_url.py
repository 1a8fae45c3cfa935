"""Store URLs: one pure function from text to an Address, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlencode

from lockbeat import settings
from lockbeat.errors import InvalidURL

Kind = Literal["standalone", "sentinel", "cluster", "embedded", "memory"]

_MASK = "***"
_SCHEMES: dict[str, tuple[Kind, bool, int]] = {  # kind, TLS, default port
    "redis": ("standalone", False, 6379),
    "rediss": ("standalone", True, 6379),
    "unix": ("standalone", False, 0),
    "redis+sentinel": ("sentinel", False, 26379),
    "rediss+sentinel": ("sentinel", True, 26379),
    "redis+cluster": ("cluster", False, 6379),
    "rediss+cluster": ("cluster", True, 6379),
    "embedded": ("embedded", False, 0),
    "memory": ("memory", False, 0),
}
_ALIASES = {"valkey": "redis", "valkeys": "rediss", "redis+unix": "unix", "valkey+unix": "unix"}

# What the value of an option may be, in small letters, and what redis-py is given.
_FLAGS = dict.fromkeys(["1", "true", "t", "yes", "y", "on"], True) | dict.fromkeys(["0", "false", "f", "no", "n", "off"], False)
_CERT_REQS = {"0": "none", "1": "optional", "2": "required", "none": "none", "optional": "optional", "required": "required"}
_TLS_VERSIONS = {"1.2": 771, "771": 771, "1.3": 772, "772": 772}


def _flag(text: str) -> bool:
    return _FLAGS[text.lower()]


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e9:  # also refuses nan
        raise ValueError(text)
    return seconds


def _cert_reqs(text: str) -> str:
    """As redis-py has it; as Python's ssl, and with it Celery's and other URLs, has it; or that one's number."""
    return _CERT_REQS[text.lower().removeprefix("ssl.").removeprefix("cert_")]


def _tls_version(text: str) -> int:
    """1.2, TLSv1.2, TLSv1_2, TLS1.2, or its number on the wire."""
    word = text.lower().removeprefix("ssl.").removeprefix("tlsversion.").removeprefix("tls").removeprefix("v")
    return _TLS_VERSIONS[word.replace("_", ".")]


# Options of redis-py that are the operator's to choose; what lockbeat relies on (protocol, retries) is not.
_CONNECTION_OPTIONS: dict[str, Callable[[str], Any]] = {
    "client_name": str,
    "socket_connect_timeout": _positive,
    "socket_keepalive": _flag,
    "socket_timeout": _positive,
}
_TLS_OPTIONS: dict[str, Callable[[str], Any]] = {
    "ssl_ca_certs": str,
    "ssl_ca_data": str,
    "ssl_ca_path": str,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_certfile": str,
    "ssl_check_hostname": _flag,
    "ssl_ciphers": str,
    "ssl_keyfile": str,
    "ssl_min_version": _tls_version,
    "ssl_password": str,
}
_SECRET_OPTIONS = frozenset({"password", "sentinel_password", "ssl_password", "ssl_ca_data"})


@dataclass(frozen=True)
class Address:
    """Where a store is, as its URL says. `safe` (and `str()`) is that URL with the secrets masked.

    `nodes` are hosts with ports: the server, the sentinels, or the cluster's seeds. `path` is a unix socket,
    or the directory of an embedded store (None: the user's default). `options` go to redis-py as they are.
    """

    kind: Kind
    scheme: str
    safe: str
    nodes: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str | None = None
    service: str | None = None
    name: str | None = None
    persist: bool = True
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    sentinel_tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __str__(self) -> str:
        return self.safe


def parse_url(url: str | None = None) -> Address:
    """Read a store URL; None means $LOCKBEAT_URL, else what pyproject.toml says, else `embedded://`. Touches no network.

    Raises InvalidURL: one line that names what is wrong and never repeats a password.
    """
    if url is not None and not isinstance(url, str):
        raise InvalidURL("url", f"must be a str, not {type(url).__name__}")
    said = settings.found("url", settings.UNSET if url is None else url)
    try:
        return _parse(str(said.value).strip())
    except InvalidURL as error:
        whence = f" (from {said.source})" if url is None else ""
        raise InvalidURL("url", f"{error.problem}{whence}") from None


def _parse(url: str) -> Address:
    scheme, mark, rest = url.partition("://")
    if not mark:
        _refuse("has no scheme; write redis://HOST:PORT, embedded:// or memory://")
    scheme = scheme.lower()
    scheme = _ALIASES.get(scheme, scheme.replace("valkeys+", "rediss+").replace("valkey+", "redis+"))
    if scheme not in _SCHEMES:
        _refuse(f"knows no such scheme; use one of {', '.join(f'{known}://' for known in _SCHEMES)}")
    if any(character.isspace() or not character.isprintable() for character in rest):
        _refuse("contains white space; percent-encode it as %20")
    rest, _, text = rest.partition("?")
    if scheme == "memory":
        return _memory(rest, _query(text))
    if scheme == "embedded":
        return _embedded(rest, _query(text))
    if scheme != "unix" and ("#" in rest + text or "@" in rest.partition("/")[2] + text.partition("=")[0]):
        # Most likely the middle of a password, so it is not shown.
        _refuse("has one of / ? # in a user name or password; percent-encode it (%2F, %3F, %23)")
    return _remote(scheme, rest, _query(text))


def _memory(rest: str, query: dict[str, str]) -> Address:
    if query:
        _refuse("has options, and memory:// takes none")
    if "/" in rest.rstrip("/") or "@" in rest:
        _refuse("has a path; memory://NAME takes a plain name")
    name = unquote(rest.rstrip("/")) or None
    return Address(kind="memory", scheme="memory", safe=f"memory://{quote(name or '')}", name=name)


def _embedded(rest: str, query: dict[str, str]) -> Address:
    path, persist = _path(rest), _FLAGS.get(query.pop("persist", "yes").lower())
    if persist is None:
        _refuse("has a persist that is neither yes nor no")
    if query:
        _refuse("has options other than persist")
    shown = f"embedded://{quote(path)}" + ("" if persist else "?persist=no")
    return Address(kind="embedded", scheme="embedded", safe=shown, path=path or None, persist=persist)


def _remote(scheme: str, rest: str, query: dict[str, str]) -> Address:
    """A store that is reached over sockets."""
    kind, tls, default_port = _SCHEMES[scheme]
    authority, slash, path = rest.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    username, password = _credentials(userinfo, query)
    given_db = query.pop("db", None)
    db, service, socket = _db(given_db), None, None
    nodes: tuple[tuple[str, int], ...] = ()
    if scheme == "unix":
        socket = _path(hosts + slash + path)
        if not socket.startswith("/"):
            _refuse("names no socket; write unix:///PATH")
        where, shown = quote(socket), {"db": str(db)} if db else {}
    else:
        nodes, shown = _nodes(hosts, default_port, many=kind != "standalone"), {}
        parts = [unquote(part) for part in path.split("/") if part]
        if kind == "sentinel":
            if not parts:
                _refuse("names no service; write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE")
            service = parts.pop(0)
        if len(parts) > 1:
            _refuse("has more in its path than a database number")
        if parts:
            db = _db(parts[0])
            if given_db is not None and db != _db(given_db):
                _refuse("names two databases, one in its path and one as db=")
        where = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in nodes)
        where += (f"/{quote(service)}" if service else "") + (f"/{db}" if db else "")
    if kind == "cluster" and db:
        _refuse("asks for a database other than 0, and a cluster has no other")
    sentinel_username, sentinel_password = query.pop("sentinel_username", None), query.pop("sentinel_password", None)
    sentinel_ssl = query.pop("sentinel_ssl", None)
    if kind != "sentinel" and (sentinel_username or sentinel_password or sentinel_ssl):
        _refuse("has sentinel_ options, which belong to redis+sentinel://")
    sentinel_tls = _FLAGS.get(sentinel_ssl.lower()) if sentinel_ssl else tls and kind == "sentinel"
    if sentinel_tls is None:
        _refuse("has a sentinel_ssl that is neither yes nor no")
    if kind == "sentinel" and sentinel_tls != tls:
        shown["sentinel_ssl"] = "yes" if sentinel_tls else "no"
    options = _options(query, tls or sentinel_tls)
    return Address(
        kind=kind,
        scheme=scheme,
        safe=f"{scheme}://{_masked(username, password)}{where}{_shown_query(shown | query)}",
        nodes=nodes,
        tls=tls,
        db=db,
        username=username,
        password=password,
        path=socket,
        service=service,
        sentinel_username=sentinel_username,
        sentinel_password=sentinel_password,
        sentinel_tls=sentinel_tls,
        options=options,
    )


def _path(text: str) -> str:
    path = unquote(text)
    if "\0" in path:
        _refuse("has a NUL byte in its path")
    return path


def _refuse(problem: str) -> NoReturn:
    raise InvalidURL("url", problem)


def _query(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        _refuse("has a query that is not NAME=VALUE&NAME=VALUE")
    query = dict(pairs)
    if len(query) != len(pairs):
        _refuse("gives an option twice")
    return query


def _credentials(userinfo: str, query: dict[str, str]) -> tuple[str | None, str | None]:
    username, _, password = userinfo.partition(":")
    if (username and "username" in query) or (password and "password" in query):
        _refuse("gives a user name or password twice, before the @ and as an option")
    return (
        unquote(username) or query.pop("username", None) or None,
        unquote(password) or query.pop("password", None) or None,
    )


def _nodes(hosts: str, default_port: int, *, many: bool) -> tuple[tuple[str, int], ...]:
    parts = hosts.split(",")
    if len(parts) > 1 and not many:
        _refuse("names several hosts; redis+cluster:// and redis+sentinel:// take those")
    return tuple(_node(part, default_port) for part in parts)


def _node(text: str, default_port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, closed, after = text[1:].partition("]")
        if not closed or (after and not after.startswith(":")):
            _refuse("has an IPv6 address without its closing bracket")
    else:
        host, colon, after = text.partition(":")
        if ":" in after:
            _refuse("has an IPv6 address outside brackets; write [::1]:6379")
        after = colon + after
    if not host:
        _refuse("names no host")
    port = after[1:] if after else str(default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536 and len(port) < 6):
        _refuse("has a port that is not a number from 1 to 65535")
    return unquote(host), int(port)


def _db(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        _refuse("has a database that is not a number of 0 or more")
    return int(text)


def _options(query: Mapping[str, str], tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in query.items():
        if name in _TLS_OPTIONS and not tls:
            _refuse(f"has {name}, which needs rediss://")
        read = _TLS_OPTIONS.get(name) or _CONNECTION_OPTIONS.get(name)
        if read is None:
            known = ", ".join(sorted({*_CONNECTION_OPTIONS, *_TLS_OPTIONS, "db", "username", "password"}))
            _refuse(f"has an option that is not one of {known}")
        try:
            options[name] = read(text)
        except (ValueError, KeyError):
            _refuse(f"has a value for {name} that can't be read")
    return options


def _masked(username: str | None, password: str | None) -> str:
    if password:
        return f"{quote(username or '', safe='')}:{_MASK}@"
    return f"{quote(username, safe='')}@" if username else ""


def _shown_query(query: Mapping[str, str]) -> str:
    shown = {name: _MASK if name in _SECRET_OPTIONS else value for name, value in query.items()}
    return "?" + urlencode(shown, safe="*/") if shown else ""
