"""Quart: every process serves the beat beside its requests, and each slot runs in one of them.

pip install 'lockbeat[embedded]' quart
hypercorn quart_app:app --workers 4
curl -X POST 'http://127.0.0.1:8000/mails?to=ann'
"""

import os
from collections.abc import AsyncIterator

from quart import Quart, request

from lockbeat import Beat, Run

beat = Beat(wait_for_store=False)
app = Quart(__name__)


@beat.every(1)
async def tick(run: Run) -> None:
    print(f"slot {run.slot:%H:%M:%S} by process {os.getpid()}", flush=True)


@beat.task
async def send(run: Run) -> str:
    return f"sent to {run.params['to']} by process {os.getpid()}"


@app.while_serving
async def serving() -> AsyncIterator[None]:
    async with beat.lifespan():
        yield


@app.post("/mails")
async def mails() -> dict[str, str]:
    spawned = await beat.spawn(send, {"to": request.args["to"]})
    return {"task": spawned.task_id}
