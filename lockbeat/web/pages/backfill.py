"""A backfill before it is begun: what it would fire."""

from __future__ import annotations

from datetime import UTC, datetime

from lockbeat.errors import InvalidArgument
from lockbeat.jobs import Job
from lockbeat.values.durations import instant
from lockbeat.web.look import Look, Page

MOST = 10_000
"""Slots of one backfill that this page plans and begins; of more the command line does."""


async def backfill(look: Look) -> Page:
    name = look.text("name") or ""
    state = await look.lb.jobs.get(name)
    start, end, now = when("start", look.asked.query), when("end", look.asked.query), await look.now()
    plan = None
    if start is not None:
        check_many(state.job, start, end or instant(round(now * 1000)))
        plan = await look.lb.jobs.backfill(name, start, end, dry_run=True)
    return Page(
        "backfill.html",
        {
            "state": state,
            "plan": plan,
            "start": look.asked.query.get("start", ""),
            "end": look.asked.query.get("end", ""),
            "now": now,
            "may": await look.may("backfill", target=name),
        },
    )


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
