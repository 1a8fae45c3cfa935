"""Forked children: a client is opened anew in each, and what the parent holds stays the parent's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lockbeat.monitor import instances
from lockbeat.sync import Lockbeat
from tests.conftest import PATIENCE, only
from tests.servers import free_port
from tests.sync.conftest import Blocking, until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

HEAD = """
import json, multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from lockbeat.errors import LeaseLost
from lockbeat.sync import Lockbeat
url, namespace = sys.argv[1:]
fork = multiprocessing.get_context("fork")
lb = Lockbeat(url, namespace=namespace)
def in_child(target, *args):
    answers = fork.SimpleQueue()
    child = fork.Process(target=lambda: answers.put(target(*args)))
    child.start()
    answer = answers.get()
    child.join(30)
    assert child.exitcode == 0, child.exitcode
    return answer
"""


def run(url: str, namespace: str, program: str) -> Any:
    command = [sys.executable, "-c", HEAD + program, url, namespace]
    done = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


@only("valkey")
def test_a_child_opens_the_client_anew_and_the_parents_works_on(url: str, namespace: str) -> None:
    parent, again, children, fences = run(
        url,
        namespace,
        """
def work():
    with lb.lock("k") as lease:
        return lb.owner, lease.fence
parent, first = work()
children, fences = zip(*[in_child(work) for _ in range(3)])
again, last = work()
print(json.dumps([parent, again, children, [first, *fences, last]]))
""",
    )
    assert parent == again
    assert len({parent, *children}) == 4
    assert fences == sorted(set(fences))


@only("valkey")
def test_children_forked_while_other_threads_call_are_not_stuck(url: str, namespace: str) -> None:
    """Whatever lock of ours another thread held at that moment, the child has its own."""
    assert (
        run(
            url,
            namespace,
            """
ended = threading.Event()
def busy(number):
    while not ended.is_set():
        with lb.lock(f"k{number}"):
            pass
threads = [threading.Thread(target=busy, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
answers = [in_child(lb.locks.is_locked, "free") for _ in range(10)]
ended.set()
for thread in threads: thread.join(30)
print(json.dumps(answers))
""",
        )
        == [False] * 10
    )


@only("valkey")
def test_a_child_that_is_forked_within_a_block_is_told_that_the_lock_is_its_parents(url: str, namespace: str) -> None:
    raised, held = run(
        url,
        namespace,
        """
def leave(lock, lease):
    said = []
    for what in (lease.check, lambda: lock.__exit__(None, None, None)):
        try:
            what()
        except LeaseLost as problem:
            said.append(problem.reason)
    return said
lock = lb.lock("k")
with lock as lease:
    raised = in_child(leave, lock, lease)
    lease.check()
    held = lb.locks.owner("k") == lb.owner
print(json.dumps([raised, held]))
""",
    )
    assert len(raised) == 2
    assert all("parent process" in reason for reason in raised)
    assert held


@only("valkey")
def test_a_child_whose_parent_had_closed_the_client_is_told_that_it_is_closed(url: str, namespace: str) -> None:
    said = run(
        url,
        namespace,
        """
def ask():
    try:
        return lb.locks.owner("k")
    except Exception as problem:
        return str(problem)
with lb:
    inside = in_child(ask)
print(json.dumps([inside, in_child(ask)]))
""",
    )
    assert said[0] is None
    assert "it was closed" in said[1]


@only("valkey")
def test_a_child_that_is_forked_within_a_claims_block_is_refused_its_verbs(url: str, namespace: str) -> None:
    """The loop that would answer them turns in the parent alone."""
    said = run(
        url,
        namespace,
        """
def ask():
    said = []
    for verb in (claim.renew, claim.complete, several.pause):
        try:
            verb()
        except Exception as problem:
            said.append(str(problem))
    return said
several = lb.jobs.all()
with lb.claims.hold("order:17") as claim:
    said = in_child(ask)
    claim.renew()
print(json.dumps(said))
""",
    )
    assert len(said) == 3
    assert all("the parent process'" in words for words in said)


@only("valkey")
def test_gunicorn_1666_a_beat_that_was_started_before_the_fork_says_so_and_serves_when_it_is_started(
    url: str, namespace: str
) -> None:
    """A thread that the application starts while --preload loads it lives in the first process alone."""
    said, before, after = run(
        url,
        namespace,
        """
from lockbeat.sync import Beat
beat = Beat(url, namespace=namespace)
@beat.task
def who():
    return os.getpid()
def child():
    said = []
    for what in (lambda: beat.spawn(who), lambda: beat.jobs):
        try:
            what()
        except Exception as problem:
            said.append(str(problem))
    beat.start()
    spawned = beat.spawn(who)
    result = lb.tasks.wait(spawned.task_id, timeout=90).result
    beat.stop()
    return said, result in (os.getpid(), os.getppid())
beat.start()
said, served = in_child(child)
spawned = beat.spawn(who)
mine = lb.tasks.wait(spawned.task_id, timeout=90).result == os.getpid()
beat.stop()
print(json.dumps([said, served, mine]))
""",
    )
    assert len(said) == 2
    assert all("call `beat.start()` here as well" in words for words in said)
    assert before
    assert after


APP = """
import json, os, threading, time
from lockbeat.sync import Beat, Lockbeat

lb = Lockbeat(os.environ["STORE"], namespace=os.environ["NAMESPACE"])
master = lb.owner  # opened before the workers are forked
beat = Beat(os.environ["STORE"], namespace=os.environ["NAMESPACE"])
ran = []

@beat.task
def ping():
    ran.append(os.getpid())
    return os.getpid()

def answer(path):
    if path == "/task":
        return beat.spawn(ping).task_id
    before = lb.fenced.get("count")
    with lb.lock("count", ttl=20, wait=20) as lease:
        found = lb.fenced.get("count")
        lb.fenced.set("count", (found.value if found else 0) + 1, fence=lease.fence)
    return {"pid": os.getpid(), "owner": lb.owner, "master": master}
"""
FLASK = """
from flask import Flask, request
app = Flask(__name__)
@app.get("/<path:path>")
def view(path):
    return json.dumps(answer("/" + path))
"""
DJANGO = """
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import re_path
settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="s")
urlpatterns = [re_path("(.+)", lambda request, path: HttpResponse(json.dumps(answer("/" + path))))]
app = get_wsgi_application()
"""
AWAY = """
import os
from lockbeat.sync import Beat

beat = Beat(os.environ["STORE"])

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"here"]
"""
CONF = """
from app import beat
def post_worker_init(worker):
    worker.log.info("starting the beat")
    beat.start(wait_for_store=False)
"""


@contextmanager
def gunicorn(folder: Path, app: str, store: str, namespace: str, *options: str) -> Iterator[str]:
    """Two workers of an application that was loaded before they were forked; its URL."""
    (folder / "app.py").write_text(app)
    (folder / "conf.py").write_text(CONF)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}", "-c", "conf.py", *options]
    environment = os.environ | {"STORE": store, "NAMESPACE": namespace, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "app:app"], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: (folder / "log").read_text().count("starting the beat") == 2, "both workers hear what they are told")
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, (folder / "log").read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.wait()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310
        return json.loads(answer.read())


def is_up(url: str) -> bool:
    try:
        get(url)
    except OSError:
        return False
    return True


@only("valkey")
@pytest.mark.parametrize("app", [FLASK, DJANGO], ids=["flask", "django"])
@pytest.mark.parametrize("options", [(), ("--threads", "4")], ids=["sync", "gthread"])
def test_gunicorn_loads_the_application_and_then_forks_its_workers(
    tmp_path: Path, url: str, namespace: str, blocking: Blocking, app: str, options: tuple[str, ...]
) -> None:
    """Every worker has a client of its own, a beat that it starts in post_worker_init, and counts under one lock."""
    lb = blocking()
    with gunicorn(tmp_path, APP + app, url, namespace, *options) as site:
        until(lambda: is_up(site + "/count"), "it answers")
        with ThreadPoolExecutor(8) as pool:
            answers = [*pool.map(get, [site + "/count"] * 40)]
        count = lb.fenced.get("count")
        assert count is not None
        assert count.value == 41
        owners = {answer["pid"]: answer["owner"] for answer in answers}
        assert len(set(owners.values())) == len(owners)
        assert answers[0]["master"] not in owners.values()
        tasks = [get(site + "/task") for _ in range(10)]
        results = {lb.tasks.wait(task, timeout=PATIENCE).result for task in tasks}
        assert results <= {*worker_pids(lb)}
    assert lb.locks.list() == []
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text, text


def test_a_worker_that_is_told_to_end_while_its_beat_starts_ends(tmp_path: Path) -> None:
    """In `post_fork` gunicorn would not hear it: a worker is killed there when its time is over."""
    away = f"redis://127.0.0.1:{free_port()}"  # so that each beat takes a second to start
    with gunicorn(tmp_path, AWAY, away, "n", "--graceful-timeout", f"{3 * PATIENCE:.0f}"):
        pass
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text, text


def worker_pids(lb: Lockbeat) -> Iterator[int]:
    opened = lb.reach()
    for instance in opened.portal.call(lambda: instances(opened.lb.store)):
        yield instance.pid or 0
