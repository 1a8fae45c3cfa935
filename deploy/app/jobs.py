"""What the container runs until your own jobs stand here."""

import os

from lockbeat import Beat, Run

beat = Beat(wait_for_store=False)


@beat.every(10)
async def hello(run: Run) -> None:
    print(f"slot {run.slot:%H:%M:%S} by {os.uname().nodename}, fence {run.fence}", flush=True)


@beat.cron("*/5 * * * *", timeout=60)
async def report(run: Run) -> None:
    print(f"the report of {run.slot:%H:%M}", flush=True)
