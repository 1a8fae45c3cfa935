"""Flask under gunicorn: every worker serves the beat in a thread beside its requests, and each slot runs in one of them.

    pip install 'lockbeat[embedded]' flask gunicorn
    gunicorn --workers 4 --config flask_conf.py flask_app:app
    curl -X POST 'http://127.0.0.1:8000/mails?to=ann'

The same with `--preload`: flask_conf.py starts the beat in each worker after it was forked.
"""

import os

from flask import Flask, request

from lockbeat.sync import Beat, Run

beat = Beat(wait_for_store=False)
app = Flask(__name__)


@beat.every(1)
def tick(run: Run) -> None:
    print(f"slot {run.slot:%H:%M:%S} by process {os.getpid()}", flush=True)


@beat.task
def send(run: Run) -> str:
    return f"sent to {run.params['to']} by process {os.getpid()}"


@app.post("/mails")
def mails() -> dict[str, str]:
    spawned = beat.spawn(send, {"to": request.args["to"]})
    return {"task": spawned.task_id}
