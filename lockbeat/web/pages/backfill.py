"""A backfill before it is begun: what it would fire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from lockbeat.errors import InvalidArgument
from lockbeat.jobs import Backfill, Job, LedgerEntry
from lockbeat.jobs.why import state_of
from lockbeat.values.durations import instant
from lockbeat.web.look import Look, Page

KNOWN = 60
"""Slots of which a plan tells what became of them."""
MOST = 10_000
"""Slots of one backfill that this page plans and begins; of more the command line does."""


async def backfill(look: Look) -> Page:
    name = look.text("name") or ""
    state = await look.lb.jobs.get(name)
    start, end, now = when("start", look.asked.query), when("end", look.asked.query), await look.now()
    plan, known = None, list[str]()
    if start is not None:
        check_many(state.job, start, end or instant(round(now * 1000)))
        plan = await look.lb.jobs.backfill(name, start, end, dry_run=True)
        known = states(await look.lb.jobs.ledger(name, KNOWN, round(plan.end.timestamp() * 1000)), plan) if plan.known else []
    return Page(
        "backfill.html",
        {
            "state": state,
            "plan": plan,
            "known": known,
            "start": look.asked.query.get("start", ""),
            "end": look.asked.query.get("end", ""),
            "now": now,
            "may": await look.may("backfill", target=name),
        },
    )


def states(entries: Sequence[LedgerEntry], plan: Backfill) -> list[str]:
    """What became of the slots that are known already; empty: there are more than were looked at."""
    found = [state_of(one) for one in entries if one.slot >= plan.start and one.state not in ("skipped", "missed", "anchored")]
    return [f"{count} {state}" for state, count in Counter(found).items()] if len(found) == plan.known else []


def when(argument: str, said: dict[str, str]) -> datetime | None:
    """A time of a form, UTC unless it says otherwise; None: it is not there. Raises InvalidArgument."""
    text = said.get(argument, "").strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text[:40])
    except ValueError:
        raise InvalidArgument(argument, f"{text[:40]!r} is no time; write it as 2030-01-31T12:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def check_many(job: Job, start: datetime, end: datetime) -> None:
    """Raises InvalidArgument for more slots than the page takes."""
    first, last = round(start.timestamp() * 1000) - 1, round(end.timestamp() * 1000) - 1
    if last > first and job.trigger.count(first, last, MOST) is None:
        raise InvalidArgument("start", f"more than {MOST:,} slots: have lockbeat backfill do that")
