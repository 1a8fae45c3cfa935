"""Each example under examples/web runs in two processes of a real server, and each slot in one of them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from lockbeat.sync import Lockbeat
from tests.conftest import PATIENCE, only
from tests.frameworks.conftest import EXAMPLES, Site, owners

UVICORN = "uvicorn --port PORT --workers 2"
HYPERCORN = "hypercorn --bind 127.0.0.1:PORT --workers 2"
GUNICORN = "gunicorn --bind 127.0.0.1:PORT --workers 2"
SITES = {
    "fastapi, uvicorn": f"{UVICORN} fastapi_app:app",
    "fastapi, gunicorn --preload": f"{GUNICORN} --preload --worker-class asgi fastapi_app:app",
    "starlette, uvicorn and uvloop": f"{UVICORN} --loop uvloop starlette_app:app",
    "litestar, uvicorn": f"{UVICORN} litestar_app:app",
    "quart, hypercorn": f"{HYPERCORN} quart_app:app",
    "flask, gunicorn": f"{GUNICORN} --config flask_conf.py flask_app:app",
    "flask, gunicorn --preload": f"{GUNICORN} --preload --threads 2 --config flask_conf.py flask_app:app",
    "django, gunicorn": f"{GUNICORN} --config django_conf.py django_app:app",
}


@only("valkey")
@pytest.mark.parametrize("command", SITES.values(), ids=SITES)
def test_each_process_serves_each_slot_runs_once_and_nothing_is_left(
    site: Callable[..., Site], slb: Lockbeat, command: str
) -> None:
    it = site(*command.split())
    it.until(lambda: len(owners(slb)) == 2, "both processes serve")
    served = owners(slb)
    it.until(lambda: len(it.runs()) >= 3, "slots run")
    tasks = [it.post("/mails?to=ann")["task"] for _ in range(4)]
    results = [slb.tasks.wait(task, timeout=PATIENCE).result for task in tasks]
    assert {result.rpartition(" ")[0] for result in results} == {"sent to ann by process"}
    assert {int(result.rpartition(" ")[2]) for result in results} <= {*served}
    it.stop()

    runs = it.runs()
    slots = [slot for slot, _ in runs]
    assert len({*slots}) == len(slots), "no slot ran twice"
    assert {pid for _, pid in runs} <= {*served}
    ledger = {f"{entry.slot:%H:%M:%S}": entry.state for entry in slb.jobs.ledger("tick")}
    assert {*slots} <= {*ledger}
    assert {slot for slot, state in ledger.items() if state == "done"} <= {*slots}, "what the ledger says has run has run"
    assert owners(slb) == {}
    assert slb.locks.list() == []
    assert "Traceback" not in it.text(), it.text()
    assert not re.search(r"never awaited|destroyed but it is pending|lockbeat\S*: \w*Warning", it.text()), it.text()


def test_every_example_has_a_site() -> None:
    apps = {path.stem for path in EXAMPLES.glob("*_app.py")}
    assert apps == {command.rpartition(" ")[2].partition(":")[0] for command in SITES.values()}
