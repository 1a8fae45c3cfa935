"""A first beat. Run it in two terminals, and stop either:

    lockbeat run examples/hello.py:beat
    lockbeat ls

Each slot is printed once, by one of them. Without $LOCKBEAT_URL they share an embedded store, for this machine only.
"""

from lockbeat import Beat, Run

beat = Beat()


@beat.every(5)
async def hello(run: Run) -> None:
    print(f"hello, it is {run.slot:%H:%M:%S} (fence {run.fence})", flush=True)


@beat.cron("*/5 * * * *", timezone="Europe/Berlin", timeout=60)
def report(run: Run) -> None:
    """A plain function runs in a thread."""
    print(f"the report of {run.slot:%H:%M}", flush=True)


if __name__ == "__main__":
    beat.run()
