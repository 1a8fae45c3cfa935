"""Starlette: every process serves the beat beside its requests, and each slot runs in one of them.

pip install 'lockbeat[embedded]' starlette uvicorn
uvicorn starlette_app:app --workers 4
curl -X POST 'http://127.0.0.1:8000/mails?to=ann'
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lockbeat import Beat, Run

beat = Beat(wait_for_store=False)


@beat.every(1)
async def tick(run: Run) -> None:
    print(f"slot {run.slot:%H:%M:%S} by process {os.getpid()}", flush=True)


@beat.task
async def send(run: Run) -> str:
    return f"sent to {run.params['to']} by process {os.getpid()}"


async def mails(request: Request) -> JSONResponse:
    spawned = await beat.spawn(send, {"to": request.query_params["to"]})
    return JSONResponse({"task": spawned.task_id})


app = Starlette(routes=[Route("/mails", mails, methods=["POST"])], lifespan=beat.lifespan)
