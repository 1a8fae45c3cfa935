"""lockbeat.sync has the names of lockbeat, and their signatures.

A new verb of `lb.jobs` needs its line in lockbeat/sync/verbs.py; what is between the parts of the asynchronous client stands in
WITHIN. A new name of `lockbeat` needs its two lines in lockbeat/sync/__init__.py.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import lockbeat
from lockbeat import calendars, claims, fences, jobs, locks, sync, tasks
from lockbeat.sync import holders, verbs

PAIRS: dict[type[Any], type[Any]] = {
    lockbeat.Beat: sync.Beat,
    lockbeat.ClaimHandle: sync.ClaimHandle,
    lockbeat.Gate: sync.Gate,
    lockbeat.Lock: sync.Lock,
    lockbeat.LockBackend: sync.LockBackend,
    lockbeat.Lockbeat: sync.Lockbeat,
    calendars.Calendars: verbs.Calendars,
    claims.Claims: holders.Claims,
    fences.Fenced: verbs.Fenced,
    jobs.Jobs: verbs.Jobs,
    jobs.SeveralJobs: sync.SeveralJobs,
    locks.Locks: holders.Locks,
    tasks.Tasks: verbs.Tasks,
}
WITHIN: dict[type[Any], set[str]] = {
    # Between the parts of the asynchronous client: they speak of shards, rows, event loops and what a worker claims.
    lockbeat.Lockbeat: {"store", "keeper", "counting"},
    lockbeat.Beat: {"use", "made_with", "tell", "declare_webhooks", "patience", "abandoned", "share", "client", "counting"},
    lockbeat.Lock: {"told", "trusted_until", "lose"},
    lockbeat.ClaimHandle: {"told", "trusted_until", "lose"},
    jobs.Jobs: {"shard_of", "declare", "forget_removed", "stand_again", "pause_failing", "resume_due", "see_failure"},
    tasks.Tasks: {"shard_of", "claim_on", "completing", "find_lost", "give_all_back", "give_back", "reply_lost"},
}
MORE: dict[type[Any], set[str]] = {
    # What a thread needs beside.
    sync.Lockbeat: {"open", "close", "reach", "begin", "end", "guard", "is_begun"},
    sync.Beat: {"start", "stop", "patience", "abandoned", "share", "within", "health"},
    sync.Lock: {"check"},
    sync.ClaimHandle: {"check"},
}
HANDLES = {"lock", "hold", "handle"}
"""Their blocks may be given `on_loss=`."""


def public(kind: type[Any]) -> dict[str, Any]:
    """Names of the class, and of what its instances are given when they are made."""
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


@pytest.mark.parametrize("there", PAIRS, ids=lambda kind: kind.__name__)
def test_the_names_are_the_same(there: type[Any]) -> None:
    here = PAIRS[there]
    assert set(public(there)) - WITHIN.get(there, set()) - set(public(here)) == set(), "missing in lockbeat/sync"
    attributes = {"calendars", "claims", "fenced", "jobs", "locks", "tasks"} if there is lockbeat.Lockbeat else set()
    assert set(public(here)) - set(public(there)) - MORE.get(here, set()) - attributes - {"lost"} <= INSTANCE.get(there, set())


INSTANCE: dict[type[Any], set[str]] = {
    # Plain attributes there, properties here.
    lockbeat.Beat: {"url", "concurrency", "grace", "durability", "stall", "settings"},
    lockbeat.Lock: {"key", "owner"},
    lockbeat.ClaimHandle: {"key", "queue", "owner", "result", "refusal"},
}


@pytest.mark.parametrize("there", PAIRS, ids=lambda kind: kind.__name__)
def test_the_signatures_are_the_same(there: type[Any]) -> None:
    here = PAIRS[there]
    for name, verb in public(there).items():
        if name in WITHIN.get(there, set()) or not inspect.isfunction(verb):
            continue
        theirs, ours = inspect.signature(verb), inspect.signature(getattr(here, name))
        assert not inspect.iscoroutinefunction(getattr(here, name)), name
        expected, found = {**theirs.parameters}, {**ours.parameters}
        if name in HANDLES:
            assert found.pop("on_loss").kind is inspect.Parameter.KEYWORD_ONLY
        if (there, name) == (lockbeat.Beat, "serve"):
            del expected["task_status"]
        if (there, name) == (lockbeat.Beat, "lifespan"):  # of what is asynchronous there, and plain here
            assert expected.pop("inner").kind == found.pop("inner").kind
        assert [*found.items()] == [*expected.items()], f"{here.__name__}.{name}"
        if not (there is lockbeat.Beat and name == "lifespan"):  # an asynchronous iterator there, a plain one here
            assert ours.return_annotation == theirs.return_annotation, f"{here.__name__}.{name}"


@pytest.mark.parametrize("kind", [lockbeat.Lockbeat, lockbeat.Beat])
def test_they_are_made_of_the_same_arguments(kind: type[Any]) -> None:
    theirs, ours = inspect.signature(kind).parameters, inspect.signature(PAIRS[kind]).parameters
    assert [*ours] == [*theirs]
    assert all(ours[name].default == theirs[name].default and ours[name].kind == theirs[name].kind for name in ours)


def test_every_verb_says_what_it_does() -> None:
    for here in PAIRS.values():
        for name, value in public(here).items():
            if inspect.isfunction(value) and here is not sync.LockBackend:
                assert inspect.getdoc(value), f"{here.__name__}.{name}"


def test_every_name_of_lockbeat_can_be_imported_from_lockbeat_sync() -> None:
    assert {*sync.__all__} - {*lockbeat.__all__} == {"HeldLease", "Loss"}
    assert {*lockbeat.__all__} - {*sync.__all__} == set(), "missing in lockbeat/sync/__init__.py"
    changed = {name for name in lockbeat.__all__ if getattr(sync, name) is not getattr(lockbeat, name)}
    assert changed == {kind.__name__ for kind in PAIRS if kind.__name__ in lockbeat.__all__}


def test_locks_satisfy_the_backend_protocol() -> None:
    backend: sync.LockBackend
    with sync.Lockbeat("memory://") as lb:
        backend = lb.locks
        assert isinstance(backend, sync.LockBackend)
