"""Tasks as values: what is spawned, claimed, answered and looked at."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from types import NoneType
from typing import Any, Literal, TypedDict, get_args

from lockbeat.errors import InvalidArgument, InvalidType, Unreadable
from lockbeat.retry import MOST_ATTEMPTS, Exponential, Fixed, Retry
from lockbeat.store import reasons
from lockbeat.store.keys import job_lock, job_of_task
from lockbeat.store.records import Attempt, LeaseLine, Retried, TaskRecord, seconds_of
from lockbeat.tasks.failure import Failure
from lockbeat.values.checks import of_type, whole
from lockbeat.values.durations import Seconds, milliseconds
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump, load

State = Literal["waiting", "running", "done", "dead", "cancelled"]
EndState = Literal["done", "dead", "cancelled"]
STATES: tuple[str, ...] = get_args(State)
RETRY = Exponential(1, factor=2, max=60)


class TaskOptions(TypedDict, total=False):
    """What a function declares for all its tasks; see the fields of `NewTask`."""

    queue: str
    max_attempts: int
    retry: Retry | None
    headers: Mapping[str, Any] | None
    delay: Seconds
    priority: int
    max_delay: Seconds | None
    max_duration: Seconds | None
    retention: Seconds
    lease: Seconds | None


class SpawnOptions(TaskOptions, total=False):
    """What spawning takes besides the name and the params; see the fields of `NewTask`."""

    idempotency_key: str | None


@dataclass(frozen=True)
class NewTask:
    """A task to spawn; validated when made: InvalidArgument names what is wrong. Durations: seconds or timedelta."""

    name: str
    """Of the function that is to run."""
    params: Any = None
    """Any JSON value, at most 1 MiB of it."""
    _: KW_ONLY
    queue: str = "default"
    max_attempts: int = 5
    """Attempts, those that end with a crash included; then it is dead."""
    retry: Retry | None = RETRY
    """When it is tried again; None: at once."""
    idempotency_key: str | None = None
    """The same key in the same queue names the same task, until its retention is over."""
    headers: Mapping[str, Any] | None = None
    """What goes with it and is not for the function: trace ids, the tenant. JSON."""
    delay: Seconds = 0
    """Nobody may claim it before, to the millisecond of the server's clock."""
    priority: int = 0
    """From -49 to 49; the higher, the sooner."""
    max_delay: Seconds | None = None
    """Cancelled if nobody has begun it this long after its spawn."""
    max_duration: Seconds | None = None
    """Cancelled if it has not ended this long after it was first begun, or if a retry would come later."""
    retention: Seconds = 3600
    """How long it can be looked at when it is done or cancelled; dead ones for a week."""
    lease: Seconds | None = None
    """How long until others notice that an attempt is renewed no more; at least 0.1. None: what its worker claims for, 5."""

    @classmethod
    def declare(cls, name: str, params: Any, options: SpawnOptions) -> NewTask:
        """A task from options by name, of which a wrong one is said to be wrong."""
        for unknown in sorted(options.keys() - _OPTIONS):
            near = difflib.get_close_matches(unknown, _OPTIONS, 1)
            raise InvalidArgument(unknown, f"no such option of a task{f'; did you mean {near[0]!r}?' if near else ''}")
        return cls(name, params, **options)

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("queue", self.queue)
        whole("max_attempts", self.max_attempts, 1, MOST_ATTEMPTS)
        whole("priority", self.priority, -49, 49)
        of_type("retry", self.retry, (Fixed, Exponential, NoneType), "Fixed or Exponential")
        if self.idempotency_key is not None:
            check_name("idempotency_key", self.idempotency_key)
        of_type("headers", self.headers, (Mapping, NoneType), "a dict")
        if not all(isinstance(key, str) for key in self.headers or ()):
            raise InvalidType("headers", "must have str keys")
        _ = self.payload, self.policies, self.delay_ms
        if self.max_delay is not None and self.max_delay_ms <= self.delay_ms:
            raise InvalidArgument("max_delay", "must be longer than the delay: nobody could begin it in time")

    @cached_property
    def payload(self) -> str:
        """Params and headers as JSON; empty: neither."""
        if self.params is None and not self.headers:
            return ""
        headers = dump("headers", dict(self.headers)) if self.headers else "{}"
        return f'{{"params":{dump("params", self.params)},"headers":{headers}}}'

    @cached_property
    def delay_ms(self) -> int:
        return milliseconds("delay", self.delay, least=0)

    @cached_property
    def max_delay_ms(self) -> int:
        return 0 if self.max_delay is None else milliseconds("max_delay", self.max_delay)

    @cached_property
    def policies(self) -> dict[str, Any]:
        """What its record says of it, and scripts read."""
        data = {
            "name": self.name,
            "queue": self.queue,
            "priority": self.priority,
            "retention_ms": milliseconds("retention", self.retention, least=0),
            "retry": None if self.retry is None else self.retry.to_json(),
            "lease_ms": None if self.lease is None else milliseconds("lease", self.lease, least=0.1),
            "max_delay_ms": self.max_delay_ms or None,
            "max_duration_ms": None if self.max_duration is None else milliseconds("max_duration", self.max_duration),
        }
        return {name: value for name, value in data.items() if value is not None}

    def record(self, unconfirmed: str = "") -> str:
        """What `task/spawn` makes the record from: `MAX_ATTEMPTS JSON`. unconfirmed: the call to confirm it; empty: none."""
        data = self.policies | ({"unconfirmed": unconfirmed} if unconfirmed else {})
        return f"{self.max_attempts} {json.dumps(data, separators=(',', ':'))}"


_OPTIONS = {*TaskOptions.__annotations__, *SpawnOptions.__annotations__}


@dataclass(frozen=True, slots=True)
class Spawned:
    """What `spawn` made, or found under the idempotency key."""

    task_id: str
    attempt: int
    """The one that it is in, or waits for: 1 for a new task."""
    created: bool
    """False: it was there already."""


@dataclass(slots=True, eq=False)
class Task:
    """One attempt of a task, claimed under a lease: what the verbs that end it want back."""

    id: str
    name: str
    """Of the function to run."""
    queue: str
    params: Any
    headers: dict[str, Any]
    attempt: int
    """1 for the first."""
    max_attempts: int
    owner: str
    fence: int
    """Grows with each attempt: hand it to whatever the attempt writes to."""
    expires_at: float
    """Of the lease as claimed: seconds since the Unix epoch, by the server's clock."""
    shard: int = field(repr=False)
    lease_ms: int = field(repr=False)
    asked_at: float = field(repr=False)
    """Monotonic time before the request that claimed it."""
    slot_ms: int = field(repr=False)
    """The slot of its job; of a spawned task and a triggered run: when it was due."""
    job: str = ""
    """The job whose slot this is, or that was triggered; empty: it was spawned."""
    lock: str = field(default="", repr=False)
    """The job's lock that goes with the attempt; empty: none."""
    timeout_ms: int | None = field(default=None, repr=False)
    ends_in: float | None = field(default=None, repr=False)
    """Seconds from the claim to when max_duration is over; None: no limit."""

    @property
    def task_id(self) -> str:
        """`id`, as it is called where it is the id of something else's task."""
        return self.id

    @property
    def keeps_result(self) -> bool:
        """Whether anybody can ask for what it returned: the ledger has no results."""
        return not self.job or not self.id.startswith(f"{self.job}@")

    @classmethod
    def of(cls, row: list[Any], now_ms: int, owner: str, shard: int, lease_ms: int, asked_at: float) -> Task:
        """From a row of `task/claim`."""
        task_id, most, text, attempt, fence, expires_ms, due_ms, until_ms, payload = row
        policies = json.loads(text.decode())
        data = load(payload, "task:params", task_id.decode()) if payload else {}
        if said := policies.get("params"):  # a job's own
            data["params"] = load(said, "task", task_id.decode())
        slot_of = policies.get("job", "")
        job = slot_of or policies.get("of", "")
        return cls(
            id=task_id.decode(),
            name=policies["name"],
            queue=policies["queue"],
            params=data.get("params"),
            headers=data.get("headers", {}),
            attempt=attempt,
            max_attempts=most,
            owner=owner,
            fence=fence,
            expires_at=expires_ms / 1000,
            shard=shard,
            lease_ms=policies.get("lease_ms", lease_ms),
            asked_at=asked_at,
            slot_ms=int(task_id.rpartition(b"@")[2]) if slot_of else due_ms,
            job=job,
            lock=job_lock(job) if job and policies.get("overlap") != "allow" else "",
            timeout_ms=policies.get("timeout_ms"),
            ends_in=(until_ms - now_ms) / 1000 if until_ms else None,
        )


Refusal = Literal["expired", "cancelled", "not the owner"]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Whether an attempt was renewed: true if so."""

    expires_at: float | None
    """The new end of the lease: seconds since the Unix epoch, by the server's clock."""
    refusal: Refusal | None = None
    """Why it was not."""

    def __bool__(self) -> bool:
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class Failed:
    """What became of a task whose attempt failed; false if that was not this attempt's to say."""

    outcome: Literal["requeued", "dead_lettered", "cancelled", "refused"]
    retry_at: float | None = None
    """requeued: when it may be claimed again, in seconds since the Unix epoch."""

    def __bool__(self) -> bool:
        return self.outcome != "refused"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks a queue holds."""

    ready: int
    """Claimable now."""
    delayed: int
    """Waiting for their time: a delay, or a retry."""
    running: int
    dead: int


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as the store has it. Times: seconds since the Unix epoch by the server's clock, None where there is none."""

    id: str
    name: str
    queue: str
    state: State
    params: Any
    headers: dict[str, Any]
    priority: int
    attempts: int
    """Begun so far."""
    max_attempts: int
    spawned_at: float | None
    due_at: float | None
    started_at: float | None
    """Of the latest attempt."""
    ended_at: float | None
    owner: str | None
    """Of the latest attempt, once it has ended or while it runs."""
    fence: int | None
    expires_at: float | None
    """running: when its lease ends unless renewed."""
    result: Any
    failure: Failure | None
    """Of the latest attempt that failed; also while the task waits for another."""
    attempts_made: tuple[Attempt, ...] = ()
    """The last ten attempts, the oldest first."""
    cancelled_by: str | None = None
    """cancelled: who did it; None: nobody, its time was over."""
    retried: Retried | None = None
    """Who had it tried again, the latest time; None: nobody."""

    @property
    def task_id(self) -> str:
        """`id`, as it is called where it is the id of something else's task."""
        return self.id

    @property
    def job(self) -> str:
        """The job whose slot it is, or that was triggered; empty: it was spawned."""
        return job_of_task(self.id)

    @classmethod
    def of(cls, task_id: str, row: list[Any], key: Callable[[str], str]) -> TaskInfo | None:
        """From a reply of `task/get`; None: there is no such task. `key`: spells a key of its shard. Raises Unreadable."""
        text, lease, expires_ms, failure, payload, result = row
        if not text:
            return None
        entry = "task"  # that is being read
        try:
            record = TaskRecord.of(text)
            policies, last, state = record.policies if "name" in record.policies else {}, record.last, record.task_state
            job, at, slot_ms = task_id.rpartition("@")
            name, queue = (policies["name"], policies["queue"]) if policies else (job, "")
            due_ms = int(slot_ms) if at and not policies else record.due_ms
            if record.code == reasons.TOOK_PLACE:  # it stands in its queue where the first of those stood whose place it took
                due_ms = max(due_ms, int(slot_ms))
            entry = "task:lease"
            held = LeaseLine.of(lease) if lease and record.state == "running" else None
            entry = "task:failure"
            failed = Failure(**load(failure, entry)) if failure else None
            entry = "task:params"
            data = {**load(payload, entry)} if payload else {}
            if said := policies.get("params"):  # a job's own
                data["params"] = load(said, "task")
            entry = "task:result"
            returned = load(result, entry) if result else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Unreadable):
            raise Unreadable(key(entry), task_id) from None
        return cls(
            id=task_id,
            name=name,
            queue=queue,
            state=state,
            params=data.get("params"),
            headers=data.get("headers", {}),
            priority=policies.get("priority", 0),
            attempts=record.attempts,
            max_attempts=record.max_attempts,
            spawned_at=seconds_of(record.spawned_ms),
            due_at=seconds_of(due_ms),
            started_at=seconds_of(record.began_ms),
            ended_at=seconds_of(record.ended_ms),
            owner=last.owner if last is not None else None,
            fence=last.fence if last is not None else None,
            expires_at=expires_ms / 1000 if held is not None else None,
            result=returned,
            failure=_failure(record, failed),
            attempts_made=record.made,
            cancelled_by=(record.detail or None) if record.code == reasons.CANCELLED else None,
            retried=record.retried,
        )


def _failure(record: TaskRecord, told: Failure | None) -> Failure | None:
    """Of the latest attempt that failed, or why it was cancelled."""
    ended = [attempt for attempt in record.made if attempt.ended_at is not None]
    if record.state == "done" or not (ended or record.ended_ms):
        return None
    how, error = (ended[-1].how, ended[-1].error) if ended else ("cancelled", None)
    if record.task_state == "cancelled" and record.code != reasons.RETRY_TOO_LATE:
        return Failure("Cancelled", reasons.sentence(record.code, record.detail))
    if how == "lost":
        return Failure("Lost", reasons.sentence(error or record.code))
    if how == "cut":
        return Failure("CutShort", reasons.sentence(error or record.code))
    return told or (Failure("Error", error or "") if how == "failed" else None)
