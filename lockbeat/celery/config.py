"""What Celery's configuration says of lockbeat: `app.conf.lockbeat_url` and so on; and the store in the broker's Redis."""

from __future__ import annotations

import difflib
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from lockbeat import settings
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.values.checks import of_type, whole

CONCURRENCY = 16
"""Messages that are sent at a time."""
OPTIONS = ("url", "namespace", "version", "concurrency", "timeout", "jobs", "shadow")
SCHEMES = ("redis", "rediss", "valkey", "valkeys")
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_ca_data", "ssl_ca_path", "ssl_check_hostname")


@dataclass(frozen=True, slots=True)
class Config:
    """What an app says."""

    url: str | None
    """Of the store; None: as $LOCKBEAT_URL or pyproject.toml say."""
    namespace: str | None = None
    version: str | int | None = None
    concurrency: int = CONCURRENCY
    timeout: float | None = None
    jobs: Mapping[str, Mapping[str, Any]] | None = None
    """Options of jobs by the name of their entry, and of all by "*"."""
    shadow: bool = False

    def job(self, name: str) -> dict[str, Any]:
        """The options of an entry's job."""
        said = self.jobs or {}
        return {**said.get("*", {}), **said.get(name, {})}


def config_of(app: Any) -> Config:
    """Read it. Raises InvalidArgument, InvalidType, which name the setting."""
    found = {name: value for name in OPTIONS if (value := app.conf.get(f"lockbeat_{name}")) is not None}
    for key in app.conf:
        _, mark, name = str(key).lower().rpartition("lockbeat_")
        if mark and name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            hint = f"; did you mean lockbeat_{near[0]}?" if near else f"; there are {', '.join(OPTIONS)}"
            raise InvalidArgument(f"lockbeat_{name}", f"no such setting{hint}")
    if "url" in found:
        of_type("lockbeat_url", found["url"], str, "a URL")
    if "concurrency" in found:
        whole("lockbeat_concurrency", found["concurrency"], 1, 1000)
    jobs = found.get("jobs")
    if jobs is not None and not (isinstance(jobs, Mapping) and all(isinstance(said, Mapping) for said in jobs.values())):
        raise InvalidType("lockbeat_jobs", 'must be a dict of dicts: {"*": {"keep": 1000}, "my-entry": {"catchup": "skip"}}')
    found["shadow"] = bool(found.get("shadow")) or os.environ.get("LOCKBEAT_SHADOW", "").lower() in ("1", "true", "yes", "on")
    return Config(found.pop("url", None) or _url(app), **found)


def _url(app: Any) -> str | None:
    """The store where `lockbeat_url` says none: the environment's or the file's, else the broker if that is Redis."""
    return None if settings.found("url").source != "default" else store_of(app.conf)


def brokers_of(conf: Any) -> list[str]:
    """The URLs of the broker; several if one stands in for another, of which Celery takes a list or a text."""
    said = conf.broker_write_url or ""
    return [url.strip() for url in (said.split(";") if isinstance(said, str) else said)]


def scheme_of(urls: list[str]) -> str:
    return urls[0].partition("://")[0].lower() if urls else ""


def store_of(conf: Any) -> str:
    """The URL of the store in the broker's Redis. Raises InvalidArgument where the broker is something else."""
    urls = brokers_of(conf)
    scheme = scheme_of(urls)
    if scheme == "sentinel":
        return _sentinel(urls, conf.broker_transport_options or {}, conf.broker_use_ssl)
    if scheme == "redis+socket":
        parts = urlsplit(urls[0])
        query = dict(parse_qsl(parts.query))
        db = query.get("virtual_host", "0").strip("/")
        userinfo, mark, _ = parts.netloc.rpartition("@")
        return f"unix://{userinfo}{mark}{parts.path}?db={db or 0}"
    if scheme not in SCHEMES:
        raise InvalidArgument("lockbeat_url", f"must say where the store is: the broker ({scheme or 'none'}) is no Redis")
    if len(urls) > 1:
        raise InvalidArgument("lockbeat_url", f"must say where the store is: there are {len(urls)} brokers")
    return _plain(urls[0], conf.broker_use_ssl)


def _plain(url: str, tls: Any) -> str:
    parts = urlsplit(url)
    scheme = f"{parts.scheme}s" if tls and not parts.scheme.endswith("ss") and parts.scheme != "valkeys" else parts.scheme
    userinfo, mark, where = parts.netloc.rpartition("@")
    host = where if where and not where.startswith(":") else f"localhost{where}"
    query = _files({name: value for name, value in parse_qsl(parts.query) if name in (*TLS, "db")}) | _files(tls)
    path = parts.path.strip("/")
    return f"{scheme}://{userinfo}{mark}{host}{path and f'/{path}'}{(query and f'?{urlencode(query)}') or ''}"


def _files(tls: Any) -> dict[str, str]:
    """What Celery says of TLS, which may be no more than that it is used, as options of a URL."""
    said = {name: value for name, value in tls.items() if value is not None} if isinstance(tls, Mapping) else {}
    query = {name: str(value) for name, value in said.items() if name in (*TLS, "db")}
    if isinstance(reqs := said.get("ssl_cert_reqs"), ssl.VerifyMode):
        query["ssl_cert_reqs"] = reqs.name
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = query["ssl_cert_reqs"].lower().removeprefix("cert_")
    return query


def _sentinel(urls: list[str], options: Mapping[str, Any], tls: Any) -> str:
    """Celery's sentinel://HOST;sentinel://HOST, with the service's name in `broker_transport_options`.

    tls: of the store; the sentinels' own is said by their options.
    """
    parts = [urlsplit(url) for url in urls]
    service = options.get("master_name")
    if not service:
        raise InvalidArgument("broker_transport_options", "says no master_name, by which the sentinels know the store")
    userinfo, mark, _ = parts[0].netloc.rpartition("@")
    hosts = ",".join(each.netloc.rpartition("@")[2] for each in parts)
    db = parts[0].path.strip("/")
    theirs = options.get("sentinel_kwargs") or {}
    query = {f"sentinel_{name}": str(theirs[name]) for name in ("username", "password") if theirs.get(name)}
    if bool(tls) != bool(theirs.get("ssl")):
        query["sentinel_ssl"] = "no" if tls else "yes"
    if tls or theirs.get("ssl"):
        query |= _files(theirs) | _files(tls)
    shown = f"?{urlencode(query)}" if query else ""
    return f"redis{'s' * bool(tls)}+sentinel://{userinfo}{mark}{hosts}/{quote(service)}{db and f'/{db}'}{shown}"
