"""claims: who is at which unit of work, and how often what happened."""

from __future__ import annotations

from dataclasses import asdict

from lockbeat.claims import Claim, ClaimStats
from lockbeat.cli._output import Cell, complain, iso, say, say_json, show
from lockbeat.cli._store import Where
from lockbeat.client import Lockbeat
from lockbeat.values.durations import span
from lockbeat.values.visible import visible, visible_json

STYLES = {"claimed": "cyan", "expired": "red"}
MOST_EXPIRED = 1_000
"""Of all queues; the oldest."""


def list_claims(where: Where, queue: str, limit: int, as_json: bool) -> None:
    """The claims of a queue: those that are live, and those that ran out and that nobody has taken over."""

    async def question(lb: Lockbeat) -> tuple[dict[str, Claim], float, ClaimStats]:
        live = await lb.claims.list(queue, limit=limit + 1)
        # After the live ones: a claim that runs out in between is shown once, as it is now.
        expired = [claim for claim in await lb.claims.expired(MOST_EXPIRED) if claim.queue == queue]
        found = {claim.key: claim for claim in (*live, *expired)}
        return found, await lb.store.server_time(), await lb.claims.stats()

    found, now, stats = where.ask(question)
    claims = [*found.values()][:limit]
    if as_json:
        say_json(
            [
                {
                    "key": claim.key,
                    "queue": claim.queue,
                    "state": _state(claim, now),
                    "owner": claim.owner,
                    "fence": claim.fence,
                    "attempt": claim.attempt,
                    "expires_at": iso(round(claim.expires_at * 1000)),
                    "expires_in": round(claim.expires_at - now, 3),
                    "previous_owner": claim.previous_owner,
                    "last_error": claim.last_error,
                }
                for claim in claims
            ]
        )
        return
    if not claims:
        others = _claimed(stats)
        say(f"no claims in queue {visible(queue)}" + (f"; {others} in other queues (--queue QUEUE)" if others > 0 else ""))
        return
    rows: list[list[Cell]] = [
        [
            (claim.key, "bold"),
            (_state(claim, now), STYLES[_state(claim, now)]),
            claim.owner,
            str(claim.fence),
            str(claim.attempt),
            span(claim.expires_at - now) if claim.expires_at > now else f"{span(now - claim.expires_at)} ago",
            _note(claim),
        ]
        for claim in claims
    ]
    columns = ("KEY", "STATE", "OWNER", "FENCE", "ATTEMPT", "EXPIRES IN", "NOTE")
    show(columns, rows, spare=("FENCE", "ATTEMPT", "OWNER"), wraps=("KEY", "NOTE"))
    if len(found) > limit:
        complain(f"there are more than {limit}; --limit N shows up to N")


def _state(claim: Claim, now: float) -> str:
    return "claimed" if claim.expires_at > now else "expired"


def _note(claim: Claim) -> str:
    notes = [f"taken over from {claim.previous_owner}"] if claim.previous_owner is not None else []
    error = claim.last_error
    lines = (error if isinstance(error, str) else "" if error is None else visible_json(error)).strip().splitlines()
    return "; ".join([*notes, *(f"failed before: {line}" for line in lines[:1])]) or "-"


def _claimed(stats: ClaimStats) -> int:
    """Those that are claimed, or ran out and wait to be taken over: what has begun and not ended."""
    return stats.acquired + stats.took_over - stats.completed - stats.failed - stats.released - stats.expired


def show_stats(where: Where, as_json: bool) -> None:
    """How often what happened to claims, in all queues, since the store was made."""

    async def question(lb: Lockbeat) -> ClaimStats:
        return await lb.claims.stats()

    stats = where.ask(question)
    if as_json:
        say_json({**asdict(stats), "claimed": _claimed(stats)})
        return
    for name, count in {**asdict(stats), "claimed": _claimed(stats)}.items():
        say(f"{name.replace('_', ' '):<11}{count}")
