"""FastAPI: every process serves the beat beside its requests, and each slot runs in one of them.

    pip install 'lockbeat[embedded]' fastapi uvicorn
    uvicorn fastapi_app:app --workers 4
    curl -X POST 'http://127.0.0.1:8000/mails?to=ann'

The mail is sent by whichever process is free.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from lockbeat import Beat, Run

beat = Beat(wait_for_store=False)  # requests are answered though the store is away


@asynccontextmanager
async def opening(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """The application's own: entered before the beat serves, left after its last function has ended."""
    yield {"sender": f"process {os.getpid()}"}  # a pool of connections, say


@beat.every(1)
async def tick(run: Run) -> None:
    print(f"slot {run.slot:%H:%M:%S} by process {os.getpid()}", flush=True)


@beat.task
async def send(run: Run) -> str:
    return f"sent to {run.params['to']} by {run.state['sender']}"


app = FastAPI(lifespan=beat.lifespan(inner=opening))


@app.post("/mails")
async def mails(to: str, request: Request) -> dict[str, str]:
    spawned = await beat.spawn(send, {"to": to})
    return {"task": spawned.task_id, "accepted by": request.state.sender}
