"""Tasks: durable units of work in queues, claimed under a lease."""

from lockbeat.store.records import Attempt
from lockbeat.tasks.failure import Failure
from lockbeat.tasks.values import Counts, Failed, Heartbeat, NewTask, Spawned, SpawnOptions, Task, TaskInfo, TaskOptions
from lockbeat.tasks.verbs import NOT_DURABLE_MS, Claimed, Tasks

__all__ = [
    "NOT_DURABLE_MS",
    "Attempt",
    "Claimed",
    "Counts",
    "Failed",
    "Failure",
    "Heartbeat",
    "NewTask",
    "SpawnOptions",
    "Spawned",
    "Task",
    "TaskInfo",
    "TaskOptions",
    "Tasks",
]
