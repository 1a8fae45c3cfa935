"""claims: who is at which unit of work, and how often what happened."""

from __future__ import annotations

from typing import Annotated

import typer

from lockbeat.claims import Claim, ClaimStats
from lockbeat.cli._command import TASKS, Queue, command
from lockbeat.cli._output import Answer, Cell, Table, ago, fields, more_than, styled
from lockbeat.client import Lockbeat
from lockbeat.values.durations import span
from lockbeat.values.visible import first_line, visible_json

CLAIM = "key queue owner fence attempt expires_at previous_owner last_error"
MOST_EXPIRED = 1_000
"""Of all queues; the oldest."""


@command(TASKS)
async def claims(
    lb: Lockbeat,
    queue: Queue = "default",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=9_999, help="How many at most.")] = 100,
    stats: Annotated[bool, typer.Option("--stats", help="Instead: how often what happened, in all queues.")] = False,
) -> Answer:
    """List a queue's claims that have not ended."""
    if stats:
        counted = await lb.claims.stats()
        told = fields(counted) | {"claimed": _claimed(counted)}
        return Answer(told, [f"{name.replace('_', ' '):<11}{count}" for name, count in told.items()])
    live = await lb.claims.list(queue, limit=limit + 1)
    # After the live ones: a claim that runs out in between is shown once, as it is now.
    expired = [claim for claim in await lb.claims.expired(MOST_EXPIRED) if claim.queue == queue]
    found = [*{claim.key: claim for claim in (*live, *expired)}.values()]
    now = await lb.store.server_time()
    rows: list[dict[str, Cell]] = [
        {
            "KEY": (claim.key, "bold"),
            "STATE": styled(_state(claim, now)),
            "OWNER": claim.owner,
            "FENCE": str(claim.fence),
            "ATTEMPT": str(claim.attempt),
            "EXPIRES IN": span(claim.expires_at - now) if claim.expires_at > now else ago(claim.expires_at, now),
            "NOTE": _note(claim),
        }
        for claim in found[:limit]
    ]
    others = 0 if found else _claimed(await lb.claims.stats())
    return Answer(
        [
            {"state": _state(claim, now), "expires_in": round(claim.expires_at - now, 3), **fields(claim, CLAIM)}
            for claim in found[:limit]
        ],
        Table(
            rows,
            none=f"no claims in queue {queue}" + (f"; {others} in other queues (--queue QUEUE)" if others > 0 else ""),
            spare=("FENCE", "ATTEMPT", "OWNER"),
            wraps=("KEY", "NOTE"),
        ),
        more_than(limit, found),
    )


def _state(claim: Claim, now: float) -> str:
    return "claimed" if claim.expires_at > now else "expired"


def _note(claim: Claim) -> str:
    notes = [f"taken over from {claim.previous_owner}"] if claim.previous_owner is not None else []
    error = claim.last_error
    failed = first_line(error if isinstance(error, str) or error is None else visible_json(error))
    return "; ".join([*notes, *([f"failed before: {failed}"] if failed else [])]) or "-"


def _claimed(stats: ClaimStats) -> int:
    """Those that are claimed, or ran out and wait to be taken over: what has begun and not ended."""
    return stats.acquired + stats.took_over - stats.completed - stats.failed - stats.released - stats.expired
