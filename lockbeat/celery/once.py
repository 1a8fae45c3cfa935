"""`once`: the worker's side of a message that was sent twice. The second one is dropped."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, overload

from celery import current_app, current_task
from celery.app.task import Task
from celery.exceptions import Ignore, Reject

from lockbeat.celery.config import config_of
from lockbeat.celery.ids import JOB, MESSAGE
from lockbeat.claims import Busy, Claim
from lockbeat.errors import ClaimRefused, LeaseLost, StoreError, StoreUnavailable
from lockbeat.leases.lease import monotonic
from lockbeat.sync import ClaimHandle, Lockbeat
from lockbeat.values.durations import Seconds, seconds

log = logging.getLogger("lockbeat")

QUEUE = "celery.once"
"""Of the claims by which a message is known."""
AGAIN = 10
"""Seconds after which a task is tried again for which the store could not be asked."""
F = TypeVar("F", bound=Callable[..., Any])
_clients: dict[tuple[str | None, str | None], Lockbeat] = {}


@overload
def once(task: F, /) -> F: ...
@overload
def once(*, remember: Seconds = 3600, lease: Seconds = 30) -> Callable[[F], F]: ...
def once(task: Any = None, *, remember: Seconds = 3600, lease: Seconds = 30) -> Any:
    """`@app.task`, and `@once` below it: run the function once for each slot, however often its message came.

    A second message of the same task id is dropped while the first is being worked on, and for `remember` seconds after it ended,
    in any way. A retry of Celery's (`self.retry`, `autoretry_for`) is another message, and runs. So does one that the function
    puts back (`Reject(requeue=True)`), and what did not come from `lockbeat.celery:Scheduler`. If a worker dies in it, a message
    that is delivered again is run when its claim has ended.

    task: a function, or a task of Celery's. remember: seconds. lease: seconds after which the claim of a worker that died ends.

    While the store is away the task is retried by Celery, in ten seconds and up to its `max_retries`.
    """
    held, keep = seconds("lease", lease, least=1), seconds("remember", remember)
    if task is None:
        return lambda function: _guarded(function, keep, held)
    return _guarded(task, keep, held)


def _guarded(task: Any, remember: float, lease: float) -> Any:
    if isinstance(task, Task):
        task.run = _guard(task.run, remember, lease)
        return task
    return _guard(task, remember, lease)


def _guard(function: Callable[..., Any], remember: float, lease: float) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        request = getattr(current_task, "request", None)
        if not request or request.called_directly or not (request.headers or {}).get(JOB):
            return function(*args, **kwargs)
        result, problem, ran = None, None, False
        try:
            with _claimed(request, lease, remember) as claim:
                try:
                    result = function(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - it has run, and how that ended is Celery's to say
                    problem = error
                ran = True
                if isinstance(problem, Reject) and problem.requeue:
                    claim.release()  # the broker is to bring the very same message again, and it is to run then
        except LeaseLost as loss:
            log.warning("message %s of entry %s: %s; the same message may have run beside it", request.id, _entry(request), loss)
        except (StoreError, ClaimRefused) as trouble:
            if not ran:
                raise current_task.retry(exc=trouble, countdown=AGAIN) from None
            log.warning(
                "message %s of entry %s has run, and may again if it comes again: %s", request.id, _entry(request), trouble
            )
        if problem is not None:
            raise problem
        return result

    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # Celery checks arguments by it
    return run


def _claimed(request: Any, lease: float, remember: float) -> ClaimHandle:
    """A message, claimed for a block. Raises Ignore if another has it or had it; Retry while the store is away."""
    key = f"{(request.headers or {}).get(MESSAGE) or request.id}:{request.retries or 0}"
    try:
        claims = _client(current_app)
        said = claims.claims.acquire(key, claims.owner, lease, QUEUE)
        first, until = said, monotonic() + lease + 5
        # By a worker that lives, which renews its claim meanwhile; or by one that died, of which this is the message again.
        while isinstance(said, Busy) and isinstance(first, Busy) and said.expires_at == first.expires_at and monotonic() < until:
            time.sleep(min(lease / 20, 0.5))
            said = claims.claims.acquire(key, claims.owner, lease, QUEUE)
        if isinstance(said, Claim):
            return claims.claims.handle(said, lease, remember)
    except StoreUnavailable as problem:
        raise current_task.retry(exc=problem, countdown=AGAIN) from None
    log.warning("message %s of entry %s came again, and is dropped", request.id, _entry(request))
    raise Ignore


def _entry(request: Any) -> str:
    return str(request.headers[JOB])


def _client(app: Any) -> Lockbeat:
    config = config_of(app)
    key = config.url, config.namespace
    if key not in _clients:
        _clients[key] = Lockbeat(config.url, namespace=config.namespace, timeout=config.timeout)
    return _clients[key]
