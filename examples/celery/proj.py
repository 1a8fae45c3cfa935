# proj.py, as you have it; only `once` is new.
import os

from celery import Celery
from celery.schedules import crontab

from lockbeat.celery import once

app = Celery("proj", broker=os.environ.get("BROKER", "redis://localhost:6379/0"))
app.conf.beat_schedule = {
    "tick": {"task": "proj.tick", "schedule": 2.0, "args": ["hello"]},
    "report": {"task": "proj.report", "schedule": crontab(minute=0, hour=9, day_of_week="mon-fri")},
}


@app.task(bind=True)
@once
def tick(self, word):
    print(f"{word} {self.request.lockbeat_slot} {self.request.id}")


@app.task
def report():
    print("report")
