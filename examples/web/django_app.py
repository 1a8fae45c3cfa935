"""Django under gunicorn: every worker serves the beat in a thread beside its requests, and each slot runs in one of them.

    pip install 'lockbeat[embedded]' django gunicorn
    gunicorn --workers 4 --config django_conf.py django_app:app
    curl -X POST 'http://127.0.0.1:8000/mails?to=ann'

A project in one file; in one of your own, `beat` stands in a module beside `settings.py`.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connection
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from lockbeat.sync import Beat, Run

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("SECRET_KEY", "for this machine only"),
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    django.setup()

beat = Beat(wait_for_store=False)


def with_database(function: Callable[[Run], Any]) -> Callable[[Run], Any]:
    """Django gives each thread a connection of its own, and looks after those of requests only."""

    @functools.wraps(function)
    def looked_after(run: Run) -> Any:
        close_old_connections()
        try:
            return function(run)
        finally:
            close_old_connections()

    return looked_after


@beat.every(1)
@with_database
def tick(run: Run) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    print(f"slot {run.slot:%H:%M:%S} by process {os.getpid()}", flush=True)


@beat.task
def send(run: Run) -> str:
    return f"sent to {run.params['to']} by process {os.getpid()}"


@csrf_exempt
def mails(request: HttpRequest) -> JsonResponse:
    spawned = beat.spawn(send, {"to": request.GET["to"]})
    return JsonResponse({"task": spawned.task_id})


urlpatterns = [path("mails", mails)]
app = get_wsgi_application()
