"""What this process has counted, and how it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lockbeat.counting import OTHER, TROUBLES, Counting
from lockbeat.health import Health
from lockbeat.metrics.families import counter, gauge, histogram
from lockbeat.store.scripts import names

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

COMMAND = "(command)"
"""What plain commands count as, among the scripts."""


def of_process(counting: Counting, health: Health | None) -> Iterator[Metric]:
    """health: None: nothing is served here."""
    slots = {(OTHER if each is counting.slots.get(OTHER) else job,): each for job, each in [*counting.slots.items()]}
    runs, traffic = {**counting.runs}, counting.all_traffic()
    yield counter(
        "lockbeat_slots_fired_total",
        "Slots that this instance fired.",
        {job: each.fired for job, each in slots.items()},
        ("job",),
    )
    yield histogram(
        "lockbeat_slot_lateness_seconds",
        "How long after a slot was due this instance fired it, by the server's clock.",
        {job: each.late for job, each in slots.items()},
        ("job",),
    )
    yield counter(
        "lockbeat_runs_total",
        "Attempts of this instance that have ended, and how.",
        {(*which, outcome): count for which, each in runs.items() for outcome, count in each.ended.items()},
        ("job", "function", "outcome"),
    )
    yield histogram(
        "lockbeat_run_duration_seconds",
        "How long a function ran in one attempt.",
        {which: each.took for which, each in runs.items()},
        ("job", "function"),
    )
    lost = {(kind,): count for kind, count in counting.lost.items()}
    yield counter("lockbeat_leases_lost_total", "Leases that this process held and lost.", lost, ("kind",))
    yield counter(
        "lockbeat_claims_taken_over_total", "Claims got here that their last owner had let run out.", counting.took_over
    )
    asked = dict.fromkeys([*names(), COMMAND], 0), dict.fromkeys([*names(), COMMAND], 0.0)
    for each in traffic:
        for script, count in [*each.runs.items()]:
            asked[0][script or COMMAND] += count
            asked[1][script or COMMAND] += each.seconds[script]
    yield counter(
        "lockbeat_store_calls_total",
        "Runs of scripts that the store has answered; calls that share a run are one.",
        {(script,): count for script, count in asked[0].items()},
        ("script",),
    )
    yield counter(
        "lockbeat_store_call_seconds_total",
        "How long these took, from here and back.",
        {(script,): seconds for script, seconds in asked[1].items()},
        ("script",),
    )
    yield histogram("lockbeat_store_round_trip_seconds", "How long the store took to answer.", counting.trips())
    yield counter(
        "lockbeat_store_errors_total",
        "Errors of the store: it was unavailable, refused, or a script met what it can't read.",
        {(kind,): sum(each.errors[kind] for each in traffic) for kind in TROUBLES},
        ("kind",),
    )
    reconnects = sum(each.reconnects for each in traffic)
    yield counter("lockbeat_store_reconnects_total", "Connections to the store that were made anew.", reconnects)
    yield histogram("lockbeat_loop_lag_seconds", "How long the event loop took to turn when asked to.", counting.lag)
    yield gauge(
        "lockbeat_clock_offset_seconds",
        "By how much this machine's clock is ahead of the store's.",
        counting.clock_offset,
    )
    if health is not None:
        yield gauge("lockbeat_live", "1: /livez is green.", float(health.live().ok))
        yield gauge("lockbeat_ready", "1: /readyz is green.", float(health.ready().ok))
        yield gauge(
            "lockbeat_turn_late_seconds",
            "For how long a loop has been in one turn, or should have begun the next; 0: it turns as it should.",
            {(loop,): late for loop, late in health.late().items()},
            ("loop",),
        )
