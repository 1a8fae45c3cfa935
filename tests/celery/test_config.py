"""Where the store is, by the settings of a Celery app."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from celery import Celery

from lockbeat.celery.config import config_of
from lockbeat.connection import parse_url
from lockbeat.errors import InvalidArgument, InvalidType


def conf(**settings: Any) -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("LOCKBEAT_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("broker", "store"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://", "redis://localhost"),
        ("redis://:secret@redis.example//", "redis://:secret@redis.example"),
        ("redis://user:p%2Fw@h:7000/3?ssl_cert_reqs=none", "redis://user:p%2Fw@h:7000/3?ssl_cert_reqs=none"),
        ("rediss://h/1?ssl_cert_reqs=CERT_REQUIRED&visibility=1", "rediss://h/1?ssl_cert_reqs=required"),
        ("redis+socket:///tmp/redis.sock?virtual_host=2", "unix:///tmp/redis.sock?db=2"),
        ("redis+socket://:p%2Fw@/tmp/redis.sock", "unix://:p%2Fw@/tmp/redis.sock?db=0"),
    ],
)
def test_it_is_the_brokers_redis(broker: str, store: str) -> None:
    assert config_of(conf(broker_url=broker)).url == store
    if "ssl" not in broker:
        parse_url(store)


def test_it_is_behind_the_brokers_sentinels() -> None:
    app = conf(
        broker_url="sentinel://:pw@a:26379/1;sentinel://b:26380",
        broker_transport_options={"master_name": "main", "sentinel_kwargs": {"password": "s/p"}},
    )
    found = parse_url(config_of(app).url)
    assert (found.kind, found.nodes, found.service, found.db) == ("sentinel", (("a", 26379), ("b", 26380)), "main", 1)
    assert (found.password, found.sentinel_password) == ("pw", "s/p")
    with pytest.raises(InvalidArgument, match="master_name"):
        config_of(conf(broker_url="sentinel://a:26379"))


def test_the_brokers_tls_is_the_stores() -> None:
    tls = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}
    found = parse_url(config_of(conf(broker_url="redis://h:6380/0", broker_use_ssl=tls)).url)
    assert found.tls
    assert found.options["ssl_ca_certs"] == "/ca.pem"


SERVICE = {"master_name": "main"}


@pytest.mark.parametrize(
    ("tls", "theirs", "store"),
    [
        (None, {"username": "u", "password": "p"}, "redis+sentinel://a:1/main?sentinel_username=u&sentinel_password=p"),
        ({"ssl_ca_certs": "/ca"}, {"ssl": True}, "rediss+sentinel://a:1/main?ssl_ca_certs=%2Fca"),
        (True, {}, "rediss+sentinel://a:1/main?sentinel_ssl=no"),
        ({"ssl_cert_reqs": ssl.CERT_NONE}, None, "rediss+sentinel://a:1/main?sentinel_ssl=no&ssl_cert_reqs=none"),
        (None, {"ssl": True, "ssl_ca_certs": "/ca"}, "redis+sentinel://a:1/main?sentinel_ssl=yes&ssl_ca_certs=%2Fca"),
    ],
)
def test_the_brokers_sentinels_speak_tls_or_not_and_so_does_what_they_watch(tls: Any, theirs: Any, store: str) -> None:
    """As celery#6455, #8016, flower#1327 and redbeat#258: the two are said apart."""
    options = SERVICE if theirs is None else SERVICE | {"sentinel_kwargs": theirs}
    found = config_of(conf(broker_url="sentinel://a:1", broker_use_ssl=tls, broker_transport_options=options)).url
    assert found == store
    parse_url(found)


@pytest.mark.parametrize(
    ("broker", "said"),
    [
        ("amqp://guest@localhost//", r"the broker \(amqp\) is no Redis"),
        ("sqs://", r"the broker \(sqs\) is no Redis"),
        ("memory://", r"the broker \(memory\) is no Redis"),
        ("redis://a;redis://b", "there are 2 brokers"),
    ],
)
def test_another_broker_needs_a_store(broker: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=f"lockbeat_url: must say where the store is: {said}"):
        config_of(conf(broker_url=broker))
    assert config_of(conf(broker_url=broker, lockbeat_url="redis://s")).url == "redis://s"


def test_a_setting_comes_before_the_environment_and_that_before_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBEAT_URL", "redis://environment")
    assert config_of(conf(broker_url="redis://broker")).url is None
    assert parse_url(None).nodes[0][0] == "environment"
    assert config_of(conf(broker_url="redis://broker", lockbeat_url="redis://setting")).url == "redis://setting"


def test_settings_may_come_from_a_namespace_of_djangos() -> None:
    class Settings:
        CELERY_BROKER_URL = "redis://broker"
        CELERY_LOCKBEAT_URL = "redis://store"
        CELERY_LOCKBEAT_NAMESPACE = "shop"

    app = Celery("django", set_as_current=False)
    app.config_from_object(Settings, namespace="CELERY")
    found = config_of(app)
    assert (found.url, found.namespace) == ("redis://store", "shop")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lockbeat_ulr": "redis://x"}, "lockbeat_ulr: no such setting; did you mean lockbeat_url"),
        ({"lockbeat_concurrency": 0}, "lockbeat_concurrency"),
        ({"lockbeat_url": 7}, "lockbeat_url"),
        ({"lockbeat_jobs": {"entry": 7}}, "lockbeat_jobs"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises((InvalidArgument, InvalidType), match=problem):
        config_of(conf(broker_url="redis://", **settings))


def test_the_options_of_a_job_are_those_of_all_and_its_own() -> None:
    found = config_of(conf(broker_url="redis://", lockbeat_jobs={"*": {"keep": 10, "tags": ["a"]}, "one": {"keep": 20}}))
    assert found.job("one") == {"keep": 20, "tags": ["a"]}
    assert found.job("two") == {"keep": 10, "tags": ["a"]}


@pytest.mark.parametrize("said", ["1", "true"])
def test_a_shadow_is_asked_for_by_setting_or_environment(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    assert config_of(conf(broker_url="redis://", lockbeat_shadow=True)).shadow
    assert not config_of(conf(broker_url="redis://")).shadow
    monkeypatch.setenv("LOCKBEAT_SHADOW", said)
    assert config_of(conf(broker_url="redis://")).shadow
