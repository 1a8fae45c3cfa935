"""import celery, redbeat, django-celery-beat: entries of the real packages become the jobs that our scheduler makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lockbeat import Lockbeat
from lockbeat.embedded import EmbeddedServer

from .conftest import Answer, using

ROOT = Path(__file__).parents[2]
APP = """
import json, os, sys
from datetime import timedelta
from celery import Celery
from celery.schedules import crontab, schedule, solar

app = Celery("proj", broker="memory://")
app.conf.timezone = "Europe/Berlin"
app.conf.redbeat_redis_url = os.environ.get("REDBEAT_URL", "")
app.conf.redbeat_key_prefix = "redbeat:"
app.conf.lockbeat_jobs = {"nightly": {"keep": 7}}

class Moon(schedule):
    def is_due(self, last_run_at):
        return False, 1.0

entries = {
    "nightly": {"task": "proj.report", "schedule": crontab(minute=0, hour=3), "args": (7,), "kwargs": {"all": True},
                "options": {"queue": "slow", "expires": 60}},
    "often": {"task": "proj.poll", "schedule": timedelta(seconds=30)},
    "sunset": {"task": "proj.lights", "schedule": solar("sunset", 52.5, 13.4)},
    "moon": {"task": "proj.tide", "schedule": Moon(60)},
    "large": {"task": "proj.eat", "schedule": 60.0, "args": ("x" * 20000,)},
}
"""
DJANGO = """
from django.conf import settings
if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["django_celery_beat"], USE_TZ=True, TIME_ZONE="Europe/Berlin", SECRET_KEY="x",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DB"]}},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )
"""
JOBS = """
from lockbeat.celery.config import Config
from lockbeat.celery.serving import jobs_of
print(json.dumps({name: job.definition for name, job in jobs_of(app, Config(None, jobs=app.conf.lockbeat_jobs), SAID).items()}))
"""


class Project:
    """A folder with an app in it."""

    def __init__(self, folder: Path, store: str, server: EmbeddedServer) -> None:
        self.folder, self.store = folder, store
        self.env = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT}:{folder}",
            "LOCKBEAT_URL": store,
            "REDBEAT_URL": f"unix://{server.socket_path}?db=3",
            "DB": str(folder / "db.sqlite3"),
        }

    def python(self, text: str) -> str:
        done = subprocess.run([sys.executable, "-c", text], cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lockbeat(self, *args: str) -> Answer:
        command = [sys.executable, "-m", "lockbeat", "import", *args]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        return Answer(done.returncode, done.stdout, done.stderr)

    def jobs(self) -> dict[str, Any]:
        async def look(lb: Lockbeat) -> dict[str, Any]:
            return {state.job.name: state for state in await lb.jobs.list()}

        found: dict[str, Any] = using(self.store, look)
        return found


@pytest.fixture
def project(tmp_path: Path, store: str, server: EmbeddedServer) -> Project:
    return Project(tmp_path, store, server)


def test_the_entries_of_beat_schedule(project: Project) -> None:
    (project.folder / "proj.py").write_text(f"{APP}\napp.conf.beat_schedule = entries\n")
    dry = project.lockbeat("celery", "proj", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert project.jobs() == {}
    rows = {row["entry"]: row for row in dry.json}
    assert {name: row["job"] is not None for name, row in rows.items()} == {
        **dict.fromkeys(("nightly", "often", "sunset"), True),
        **dict.fromkeys(("moon", "large"), False),
    }
    assert "is_due" in rows["moon"]["left"]
    assert "can't be put into JSON, or is too much" in rows["large"]["left"]
    assert "moon is left: " in dry.err
    done = project.lockbeat("celery", "proj:app", "--json")
    assert (done.code, done.json) == (0, dry.json)
    said = project.python(f"from proj import *\n{JOBS.replace('SAID', '''{n: e for n, e in entries.items() if n != 'moon'}''')}")
    scheduler: dict[str, str] = json.loads(said)
    found = project.jobs()
    assert {name: state.job.definition for name, state in found.items()} == {
        name: scheduler[name] for name in ("nightly", "often", "sunset")
    }
    assert {state.job.origin for state in found.values()} == {"import"}
    assert found["nightly"].job.keep == 7
    assert found["nightly"].job.params["options"] == {"queue": "slow", "expires": 60}
    people = project.lockbeat("celery", "proj")
    assert people.out.splitlines()[0].split() == ["ENTRY", "BECOMES", "SCHEDULE", "TASK", "NOTES"]


FAULTS = """
from datetime import UTC, datetime
from celery import Celery
from kombu import Queue

app = Celery("faults", broker="memory://")
app.conf.task_queues, app.conf.task_create_missing_queues = [Queue("celery")], False
app.conf.task_routes = {"faults.routed": {"queue": "nowhere"}}
app.conf.lockbeat_jobs = {"over": {"end": datetime(2020, 1, 1, tzinfo=UTC)}}

@app.task(name="faults.add")
def add(a, b):
    pass

@app.task(name="faults.routed")
def routed():
    pass

def entry(task="faults.add", args=(1, 2), schedule=60.0, **options):
    return {"task": task, "args": args, "schedule": schedule, "options": options}

app.conf.beat_schedule = {
    "sound": entry(),
    "unknown": entry("faults.nosuch"),
    "arguments": entry(args=(1,)),
    "queue": entry(queue="elsewhere"),
    "routed": entry("faults.routed", ()),
    "serializer": entry(serializer="nosuch"),
    "expired": entry(expires=datetime(2020, 1, 1)),
    "at once": entry(expires=0),
    "over": entry(),
}
"""


def test_what_can_never_be_sent_is_said_of_each_entry_also_in_a_dry_run(project: Project) -> None:
    (project.folder / "faults.py").write_text(FAULTS)
    dry = project.lockbeat("celery", "faults", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert project.jobs() == {}
    rows = {row["entry"]: row for row in dry.json}
    assert {name: row["notes"] for name, row in rows.items() if row["notes"]} == {"over": ["it has no slots any more"]}
    said = {name: fault for name, row in rows.items() for fault in row["faults"]}
    assert {*said} == {"unknown", "arguments", "queue", "routed", "serializer", "expired", "at once"}
    for name, words in {
        "unknown": "the app has no task 'faults.nosuch'",
        "arguments": "its arguments do not fit the task, no message can be sent: ",
        "queue": "'elsewhere' missing from task_queues",
        "routed": "'nowhere' missing from task_queues",
        "serializer": "nosuch",
        "expired": "each message has expired before it is sent: expires is 2020-01-01",
        "at once": "each message has expired before it is sent: expires is 0",
    }.items():
        assert words in said[name]
        assert f"lockbeat: {name}: {said[name]}\n" in dry.err
    done = project.lockbeat("celery", "faults", "--json")
    assert (done.code, done.json, {*project.jobs()}) == (0, dry.json, {*rows}), (
        "they are jobs all the same: the app may be mended"
    )
    people = project.lockbeat("celery", "faults", "--dry-run").out
    assert "the app has no task" in " ".join(people.split())


def test_the_entries_that_redbeat_keeps(project: Project) -> None:
    (project.folder / "proj.py").write_text(f"{APP}\napp.conf.beat_schedule = {{'static': {{'task': 't', 'schedule': 9.0}}}}\n")
    project.python("""
from proj import *
from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.schedules import rrule
from redbeat.schedulers import get_redis
from datetime import datetime, UTC
get_redis(app).flushdb()
RedBeatScheduler(app, lazy=True).setup_schedule()
for name in ("nightly", "often"):
    RedBeatSchedulerEntry(name, app=app, **entries[name]).save()
RedBeatSchedulerEntry("off", "proj.poll", schedule(5), enabled=False, app=app).save()
RedBeatSchedulerEntry("rule", "proj.poll", rrule("DAILY", dtstart=datetime.now(UTC)), app=app).save()
get_redis(app).hset("redbeat:broken", "definition", "{")
get_redis(app).zadd("redbeat::schedule", {"redbeat:broken": 1, "redbeat:gone": 1})
""")
    dry = project.lockbeat("redbeat", "proj", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    rows = {row["entry"]: row for row in dry.json}
    left = {name: row["left"] for name, row in rows.items() if row["left"]}
    assert {*left} == {"static", "rule", "broken", "gone"} | (rows.keys() & {"celery.backend_cleanup"})
    assert "stands in the code's beat_schedule" in left["static"]
    assert "can't read it" in left["broken"]
    assert "no definition" in left["gone"]
    assert project.jobs() == {}
    assert project.lockbeat("redbeat", "proj").code == 0
    found, scheduler = project.jobs(), json.loads(project.python(f"from proj import *\n{JOBS.replace('SAID', OF_BOTH)}"))
    assert {name: state.job.definition for name, state in found.items() if name != "off"} == scheduler
    assert found["off"].paused.reason == "it was disabled"
    assert found["off"].paused.by == "import"
    assert found["off"].job.trigger.period_ms == 5000
    assert {state.job.origin for state in found.values()} == {"import"}


OF_BOTH = "{name: entries[name] for name in ('nightly', 'often')}"


def test_the_tables_of_django_celery_beat(project: Project) -> None:
    (project.folder / "proj.py").write_text(APP + DJANGO)
    project.python("""
from proj import *
import django
django.setup()
from datetime import datetime, timedelta, UTC
from django.core.management import call_command
from django_celery_beat.models import *
call_command("migrate", verbosity=0)
three, _ = CrontabSchedule.objects.get_or_create(minute="0", hour="3", timezone="America/New_York")
half, _ = IntervalSchedule.objects.get_or_create(every=30, period="seconds")
sun, _ = SolarSchedule.objects.get_or_create(event="sunset", latitude=52.5, longitude=13.4)
past, _ = ClockedSchedule.objects.get_or_create(clocked_time=datetime(2020, 1, 1, tzinfo=UTC))
soon, _ = ClockedSchedule.objects.get_or_create(clocked_time=datetime(2040, 1, 1, tzinfo=UTC))
add = PeriodicTask.objects.create
add(name="nightly", task="proj.report", crontab=three, args="[7]", kwargs='{"all": true}', queue="slow", priority=3,
    expire_seconds=60, description="what it is for")
add(name="often", task="proj.poll", interval=half, enabled=False)
add(name="sunset", task="proj.lights", solar=sun)
add(name="between", task="proj.poll", interval=half, start_time=datetime(2030, 1, 1, tzinfo=UTC),
    expires=datetime(2031, 1, 1, tzinfo=UTC))
add(name="expired", task="proj.poll", interval=half, expires=datetime(2021, 1, 1, tzinfo=UTC))
add(name="past", task="proj.poll", clocked=past, one_off=True)
add(name="soon", task="proj.poll", clocked=soon, one_off=True)
add(name="ran", task="proj.poll", interval=half, one_off=True, total_run_count=1)
PeriodicTask.objects.bulk_create([PeriodicTask(name="broken", task="proj.poll", interval=half, args="[7")])
""")
    count = "from proj import *; import django; django.setup(); from django_celery_beat.models import PeriodicTask as P;"
    count += "print(sorted(P.objects.values_list('name', 'enabled', 'last_run_at', 'total_run_count')))"
    before = project.python(count)
    dry = project.lockbeat("django-celery-beat", "proj", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert project.jobs() == {}
    rows = {row["entry"]: row for row in dry.json}
    assert {name: row["left"][:20] for name, row in rows.items() if row["left"]} == {
        "ran": "it is to run once, a",
        "broken": "its args can't be re",
    }
    assert {name: row["notes"] for name, row in rows.items() if row["notes"]} == {
        "expired": ["it has expired: it has no slots"],
        "past": ["its time is over: it has no slots"],
    }
    assert project.lockbeat("django-celery-beat", "proj").code == 0
    assert project.python(count) == before
    found = project.jobs()
    assert {*found} == {"nightly", "often", "sunset", "between", "expired", "past", "soon"}
    nightly = found["nightly"].job
    assert str(nightly.trigger) == "0 3 * * * America/New_York"
    assert nightly.description == "what it is for"
    assert nightly.params == {
        "task": "proj.report",
        "args": [7],
        "kwargs": {"all": True},
        "options": {"queue": "slow", "priority": 3, "expires": 60, "headers": {"periodic_task_name": "nightly"}},
    }
    assert {name for name, state in found.items() if state.paused} == {"often"}
    assert found["between"].next.slot_ms // 1000 == 1_893_456_000
    assert found["soon"].job.limit == 1
    assert [found[name].next for name in ("expired", "past")] == [None, None]
    again = project.lockbeat("django-celery-beat", "proj", "--json")
    assert (again.code, again.json) == (0, dry.json)
    assert {name for name, state in project.jobs().items() if state.paused} == {"often"}


def test_what_belongs_to_another_origin_is_left_unless_it_is_to_be_taken_over(project: Project) -> None:
    (project.folder / "proj.py").write_text(f"{APP}\napp.conf.beat_schedule = {{'often': entries['often']}}\n")
    using(project.store, lambda lb: lb.jobs.put("often", None))
    done = project.lockbeat("celery", "proj", "--json")
    assert done.json[0]["left"].endswith("belongs to origin 'api'; say --take-over")
    assert project.jobs()["often"].job.origin == "api"
    assert project.lockbeat("celery", "proj", "--take-over").code == 0
    assert project.jobs()["often"].job.origin == "import"


def test_what_can_not_be_loaded_is_one_line(project: Project) -> None:
    (project.folder / "proj.py").write_text("app = 7\n")
    (project.folder / "empty.py").write_text("from celery import Celery\napp = Celery(broker='memory://')\n")
    (project.folder / "away.py").write_text(
        "from celery import Celery\napp = Celery(broker='memory://')\napp.conf.redbeat_redis_url = 'redis://127.0.0.1:1'\n"
    )
    project.lockbeat("celery", "none").refuses(2, "names no Celery app")
    project.lockbeat("celery", "proj:nosuch").refuses(2, "names no Celery app: module 'proj' has no attribute 'nosuch'")
    project.lockbeat("celery", "proj:app").refuses(2, "is no Celery app but of type int")
    project.lockbeat("celery", "empty").refuses(2, "empty has no entries there")
    project.lockbeat("redbeat", "away").refuses(1, "the entries of away can't be read: ConnectionError: ")
