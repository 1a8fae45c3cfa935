"""Litestar: every process serves the beat beside its requests, and each slot runs in one of them.

pip install 'lockbeat[embedded]' litestar uvicorn
uvicorn litestar_app:app --workers 4
curl -X POST 'http://127.0.0.1:8000/mails?to=ann'
"""

import os

from litestar import Litestar, post
from litestar.params import FromQuery

from lockbeat import Beat, Run

beat = Beat(wait_for_store=False)


@beat.every(1)
async def tick(run: Run) -> None:
    print(f"slot {run.slot:%H:%M:%S} by process {os.getpid()}", flush=True)


@beat.task
async def send(run: Run) -> str:
    return f"sent to {run.params['to']} by process {os.getpid()}"


@post("/mails")
async def mails(to: FromQuery[str]) -> dict[str, str]:
    spawned = await beat.spawn(send, {"to": to})
    return {"task": spawned.task_id}


app = Litestar([mails], lifespan=[beat.lifespan])  # one's own stand before it: they are entered in order, and left backwards
