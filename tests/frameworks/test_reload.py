"""What development servers start anew leaves nothing behind: no instance, no lease, no process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from lockbeat.sync import Lockbeat
from tests.conftest import only
from tests.frameworks.conftest import LONG, Site, owners
from tests.servers import wait_until
from tests.test_embedded_idle import lives

FOREVER = """
beat = Beat(grace=0.5)

@beat.every(1, max_attempts=1)
async def forever(run: Run) -> None:
    await anyio.sleep_forever()
"""
FASTAPI = f"""
import anyio
from fastapi import FastAPI
from lockbeat import Beat, Run
{FOREVER}
app = FastAPI(lifespan=beat.lifespan)
"""
FLASK = f"""
import sys
import anyio
from flask import Flask
from lockbeat.sync import Beat, Run
{FOREVER}
beat.start()
app = Flask(__name__)
if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), debug=True, reloader_type="stat")
"""
"""As `flask run --debug`, but for the reloader: where watchdog is installed that would watch all that other tests write."""
SITES = {
    "uvicorn --reload": (FASTAPI, "uvicorn --port PORT --reload app:app", 1),
    "app.run(debug=True)": (FLASK, "app PORT", 2),  # it loads the application in both processes
}


def has_ended(pid: int) -> bool:
    return not lives(pid)


def touching(path: Path) -> Iterator[None]:
    """Each step looks after the file: it is newer now, and again after a while, for one that had not looked at it before."""
    for number in count():
        if number in (0, 60, 400):
            os.utime(path, (2e9 + number, 2e9 + number))
        yield


@only("valkey")
@pytest.mark.parametrize(("text", "command", "number"), SITES.values(), ids=SITES)
def test_a_reload_and_ctrl_c_leave_nothing_behind(
    site: Callable[..., Site], tmp_path: Path, namespace: str, text: str, command: str, number: int
) -> None:
    """On an embedded store, whose server is a process more that could be left."""
    (tmp_path / "app.py").write_text(text)
    store = f"embedded://{tmp_path / 'store'}"
    it = site(*command.split(), folder=tmp_path, store=store)
    with Lockbeat(store, namespace=namespace) as lb:
        embedded = lb.reach().lb.store.connector.embedded
        assert embedded is not None
        server = embedded.pid
        assert server is not None
        it.until(lambda: {lease.owner for lease in lb.locks.list()} & {*owners(lb).values()}, "a function holds its job's lock")
        it.until(lambda: len(owners(lb)) == number, "all processes serve")
        before = owners(lb)
        touched = touching(tmp_path / "app.py")
        it.until(
            lambda: next(touched) or ({*before} - {*owners(lb)} and {*owners(lb)} - {*before}),
            "a process has made room for another",
        )
        for pid in {*before} - {*owners(lb)}:
            assert lb.locks.list(owner=before[pid]) == []
            it.until(partial(has_ended, pid), "the one before has ended")
        it.until(lambda: {lease.owner for lease in lb.locks.list()} & {*owners(lb).values()}, "it runs again")
        # uvicorn's reloader passes it on as SIGTERM; a SIGINT behind that, as Ctrl-C may send, is to uvicorn what a second Ctrl-C
        # is: it leaves at once, like one that is killed.
        last = owners(lb)
        it.stop(signal.SIGINT, to_all=number == 2)
        for pid in last:  # Werkzeug's reloader does not wait for the one it watches
            wait_until(partial(has_ended, pid), "each of them has ended", timeout=LONG)
        # Werkzeug kills the one that it watches a quarter of a second after Ctrl-C, whatever that still has to give back.
        killed = {owner for pid, owner in last.items() if number == 2 and pid != it.process.pid}
        assert {*owners(lb).values()} <= killed, it.text()
        assert {lease.owner for lease in lb.locks.list()} <= killed
    wait_until(partial(has_ended, server), "the store's server has ended with its last user", timeout=LONG)
