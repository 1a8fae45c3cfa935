"""A webhook is signed, is a task that is tried again, and is sent once for each event."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from lockbeat import Beat, Fixed, Lockbeat
from lockbeat.alarms import Webhook, webhook
from lockbeat.errors import InvalidArgument, InvalidType
from tests.alarms.services import Services
from tests.beats import Beats, eventually
from tests.conftest import only, wait_until

SECRET = "whsec_" + base64.b64encode(b"twenty-four bytes of key").decode()


def program(beats: Beats, hook: Webhook) -> Beat:
    beat = beats(monitors=[hook])

    @beat.task(name="mail", max_attempts=1)
    async def mail() -> None:
        raise ValueError("no luck")

    return beat


@only("memory", "valkey")
async def test_an_event_is_sent_once_signed_and_tried_again(
    beats: Beats, lb: Lockbeat, told: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(webhook.OPTIONS, "retry", Fixed(0))
    told.refuse += [500, 404]
    hooks = [Webhook(f"{told.url}/hook", secret=SECRET) for _ in range(2)]
    async with program(beats, hooks[0]).lifespan(), program(beats, hooks[1]).lifespan():
        spawned = await lb.tasks.spawn("mail", max_attempts=1)
        await wait_until(lambda: told.hooks, "it is sent")
        await lb.jobs.list()
    [(headers, body)] = told.hooks
    sent = json.loads(body)
    assert (sent["type"], sent["data"]["task_id"], sent["data"]["name"]) == ("task_dead", spawned.task_id, "mail")
    assert headers["webhook-id"] == sent["id"]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"twenty-four bytes of key", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@only("memory")
async def test_a_webhook_that_never_gets_through_is_dead_and_tells_itself_nothing(
    beats: Beats, lb: Lockbeat, told: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(webhook.OPTIONS, "retry", Fixed(0))
    monkeypatch.setitem(webhook.OPTIONS, "max_attempts", 2)
    told.refuse += [500] * 50
    async with program(beats, Webhook(f"{told.url}/hook", secret=SECRET)).lifespan():
        await lb.tasks.spawn("mail", max_attempts=1)

        async def dead() -> bool:
            return {task.name for task in await lb.tasks.dead()} == {"mail", "lockbeat.webhook.default"}

        await eventually(dead, "it is given up")
        assert len(await lb.tasks.dead()) == 2
    assert len(told.refuse) == 48


def test_bad_arguments_are_named() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"url": "host/hook", "secret": SECRET}, "url: must be a URL that begins with https://HOST"),
        ({"url": "https://host/a b", "secret": SECRET}, "url: must be a URL that begins with https://HOST"),
        ({"url": "https://host:port/hook", "secret": SECRET}, "url: must be a URL that begins with https://HOST"),
        ({"url": "https://host", "secret": "short"}, "secret: must have 16 characters at least"),
        ({"url": "https://host", "secret": "whsec_not base64 at all!"}, "secret: must be base64 behind whsec_"),
        ({"url": "https://host", "secret": SECRET, "events": "task_dead"}, "events: must be several names, not one str"),
        ({"url": "https://host", "secret": SECRET, "events": ["store_lost"]}, "events: 'store_lost' can't be sent"),
    ]
    for given, said in cases:
        with pytest.raises((InvalidArgument, InvalidType)) as problem:
            Webhook(**given)
        assert str(problem.value).startswith(said)
    twice = [Webhook("https://host", secret=SECRET), Webhook("https://other", secret=SECRET)]
    with pytest.raises(InvalidArgument, match="two webhooks are named 'default'"):
        Beat(monitors=twice)
    assert "twenty" not in repr(twice)
    assert SECRET not in repr(twice)
