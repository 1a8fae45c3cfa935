"""One of several instances that are killed: `python -m tests.alarms.instance URL NAMESPACE PORT`."""

from __future__ import annotations

import asyncio
import sys

from lockbeat import Beat
from lockbeat.alarms import Cronitor, Healthchecks, Monitor, Sentry
from lockbeat.jobs import outbox
from tests.alarms.services import API_KEY, CRONITOR_KEY, PING_KEY, SENTRY_KEY

JOBS = ("quick", "slow", "fails")


def monitors(port: int) -> list[Monitor]:
    url = f"http://127.0.0.1:{port}"
    return [
        Sentry(f"http://{SENTRY_KEY}@127.0.0.1:{port}/42", jobs=JOBS),
        Healthchecks(PING_KEY, api_key=API_KEY, url=url, api_url=url, jobs=JOBS),
        Cronitor(CRONITOR_KEY, url=url, api_url=url, jobs=JOBS),
    ]


def make(url: str, namespace: str, port: int) -> Beat:
    beat = Beat(url, namespace=namespace, grace=1, monitors=monitors(port))

    @beat.every(1, name="quick", keep=1000, lease=1)
    async def quick() -> None: ...

    @beat.every(1, name="slow", keep=1000, lease=1)
    async def slow() -> None:
        await asyncio.sleep(0.5)

    @beat.every(2, name="fails", keep=1000, lease=1)
    async def fails() -> None:
        raise ValueError("no luck")

    return beat


if __name__ == "__main__":
    outbox.LEASE_MS, outbox.KEEP = 5000, 1.0  # or those of who is killed would come again after half a minute
    make(sys.argv[1], sys.argv[2], int(sys.argv[3])).run()
