"""Why: what became of a slot, or will, and why, in a paragraph for people. Pure: no store, no clock.

Decided by states and CODES alone. What a CODE means to people stands in `reasons.BECAUSE`, which has all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from lockbeat.calendars import Closed
from lockbeat.jobs import around, plan
from lockbeat.jobs.control import PAUSE, Change
from lockbeat.jobs.definition import Job
from lockbeat.jobs.ledger import Backfilled, Lateness, LedgerEntry, situation
from lockbeat.jobs.plan import Slot
from lockbeat.jobs.unfinished import Unfinished
from lockbeat.store import reasons
from lockbeat.store.keys import job_of_task, slot_of_task
from lockbeat.store.records import Attempt, Retried
from lockbeat.triggers import ByHand, Called, isoformat
from lockbeat.triggers.no_slot import no_slot
from lockbeat.values.durations import brief, instant, span
from lockbeat.values.links import link

Clock = Callable[[float], str]
"""Spells an instant, in seconds since the Unix epoch."""

TOLERANCE = 5.0
"""Seconds, by the server's clock, within which a slot that has come due is not late: whoever fires it may be about to."""

UNTOLD = (
    *("to_come", "to_be_skipped", reasons.EXCLUDED, "held_back", "due", "overdue", "beyond_limit"),
    *("no_slot", "no_slots", "ended", "forgotten", "uncalled", "not_declared"),
)
"""Situations of an instant of which it has none."""

ENDED = {"done": "was done", "lost": "was lost", "cut": "was cut short", "cancelled": "was stopped"}
"""How an attempt ended, for people."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of a slot or of a triggered run, or will, and why."""

    job: str
    at_ms: int | None
    """The instant that was asked about; None: none was named, and there is none to tell of."""
    situation: str
    """One of `ledger.KNOWN` or UNTOLD."""
    text: str
    """A paragraph for people."""
    code: str | None = None
    """The CODE of the reason, see `lockbeat.store.reasons`; no_slot: one of `lockbeat.triggers.no_slot`; None: it has none."""
    entry: LedgerEntry | None = None
    """What the ledger has of it."""
    before_ms: int | None = None
    after_ms: int | None = None
    log_url: str | None = None
    """Where the logs of its latest attempt are, by the client's `log_url`; None: it has none, or was not begun."""
    unfinished: Unfinished | None = None
    """The run of which it tells that has not ended: itself, or the one that it was skipped for or waits for; None: none has."""

    @property
    def behind(self) -> Unfinished | None:
        """The run that it was skipped for, or waits for, if that has not ended."""
        itself = self.entry is None or self.unfinished is None or self.unfinished.entry.task_id == self.entry.task_id
        return None if itself else self.unfinished

    @property
    def slot(self) -> datetime | None:
        """The instant that was asked about (aware, UTC)."""
        return None if self.at_ms is None else instant(self.at_ms)

    @property
    def before(self) -> datetime | None:
        """no_slot: the slot before (aware, UTC)."""
        return None if self.before_ms is None else instant(self.before_ms)

    @property
    def after(self) -> datetime | None:
        """no_slot: the slot after."""
        return None if self.after_ms is None else instant(self.after_ms)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a job where its ledger has no entry."""

    job: Job
    next: Slot | None
    paused: Change | None
    retired_at: float | None
    """When it retired; None: it has not."""
    fired: int
    """How many of its slots were fired."""
    now: float
    closed: Closed | None = None
    """The days that it excludes."""
    oldest_ms: int | None = None
    """The slot of the oldest entry; None: there is none."""
    served: bool = True
    """Whether any instance fires slots."""


def iso(at: float) -> str:
    """An instant in ISO 8601, UTC."""
    return isoformat(round(at * 1000))


def because(job: str, code: str, detail: str, clock: Clock = iso) -> str:
    """What people are told of a reason. One that a newer instance wrote is given back as it is."""

    if code not in reasons.BECAUSE:
        return f"{reasons.sentence(code, detail)}."
    said = reasons.named(detail, task=lambda task_id: task_named(job, task_id, clock), ms=brief) | {"job": job}
    text = reasons.BECAUSE[code].format_map(said)
    return text[:1].upper() + text[1:]


def of_entry(entry: LedgerEntry, at_ms: int, clock: Clock = iso, unfinished: Unfinished | None = None) -> Explanation:
    """Of a slot, or a triggered run, of which something is known. unfinished: as an explanation has it."""
    now, code = situation(entry), entry.code
    head = f"{entry.run}, triggered at {clock(at_ms / 1000)}" if entry.run else f"{entry.job} at {clock(at_ms / 1000)}"
    sentences = [f"{head}: {now.replace('_', ' ')}.", _ran(entry, now, clock)]
    if code is not None and not (code == reasons.BACKFILLED and entry.backfill) and code != reasons.RETRIED:
        at = f" at {clock(entry.ended_at)}" if code == reasons.CANCELLED and entry.ended_at else ""
        said = because(entry.job, code, entry.detail, clock).removesuffix(".")
        sentences.append(f"{said}{at}." if said else "")
    if entry.backfill:
        sentences.append(_backfilled(entry.backfill, entry.at, clock))
    if entry.retried:
        sentences.append(_retried(entry, entry.retried, clock))
    if unfinished is not None:
        sentences.append(_unfinished(entry, unfinished, clock))
    sentences.append(_late(entry.lateness, entry))
    return Explanation(entry.job, at_ms, now, " ".join(filter(None, sentences)), code, entry, unfinished=unfinished)


def _unfinished(entry: LedgerEntry, run: Unfinished, clock: Clock) -> str:
    """For how long it runs, or the one in whose way it is not to be."""
    if run.entry.task_id == entry.task_id:
        usually = f"; {run.usually}" if run.usually else ""
        return f"It has run for {span(run.seconds or 0)}{usually}.{' It hangs.' if run.hangs else ''}"
    # The reason before it has named the one for which it was skipped.
    which = "that" if entry.code == reasons.OVERLAP else task_named(entry.job, run.entry.task_id, clock)
    return f"{which[:1].upper() + which[1:]} has not ended yet: {run.text}.{' It hangs: end it first.' if run.hangs else ''}"


def task_named(job: str, task_id: str, clock: Clock = iso) -> str:
    """A task of a job, as people call it."""
    slot_ms = slot_of_task(task_id)
    return f"the run {task_id}" if slot_ms is None or job_of_task(task_id) != job else f"the slot of {clock(slot_ms / 1000)}"


def _ran(entry: LedgerEntry, now: str, clock: Clock) -> str:
    """What was done with it."""
    made, by = entry.attempts_made, f" by {entry.by}" if entry.by else ""
    if now == "waiting" and entry.code == reasons.RETRIED:
        return "No worker has begun it."
    if now == "waiting":
        return f"It was fired{by}, and no worker has begun it."
    if now == "in_line":
        return f"It was fired{by}."
    if now in ("skipped", "missed"):
        return _several(entry, now, clock)
    if now == "anchored":
        return "That is no slot: the job's next slot was reckoned anew then."
    if not made:
        return "It had not begun." if now in ("cancelled", "stopping") else ""
    last = made[-1]
    attempt = f"Attempt {last.number}" + (f" of {entry.max_attempts}" if entry.max_attempts else "")
    who, took = f"by {last.owner}", _took(last)
    if now == "running":
        which = "" if last.number == entry.max_attempts == 1 else f", {attempt[:1].lower()}{attempt[1:]}"
        return f"{last.owner} has run it since {clock(last.started_at)}{which}."
    if now == "stopping":
        return f"{attempt}, {who}, is told to stop, and its function has yet to do so."
    if last.how == "failed":
        error = (entry.reason if entry.code is None else last.error) or "it did not say why"
        told = f"{attempt}, {who}, failed{took}: {error.strip().splitlines()[0].rstrip('.')}."
    else:
        took = "" if last.how == "lost" else took  # when it ended, nobody saw
        told = f"{attempt}, {who}, {ENDED.get(last.how, last.how)}{took}."
    if now == "retrying":
        told += f" The next may begin at {clock(entry.retry_at)}." if entry.retry_at else ""
    return told


def _several(entry: LedgerEntry, now: str, clock: Clock) -> str:
    word = "was not fired" if not entry.max_attempts else "was fired, and nobody began it"
    if entry.count in (None, 1) or entry.last_slot is None:
        return f"It {word}."
    some = f"{entry.count} slots" if entry.count and entry.count > 0 else "the slots"
    from_to = f"from {clock(entry.slot_ms / 1000)} to {clock((entry.last_ms or 0) / 1000)}"
    return f"It is one of {some} {from_to} that were {now} together."


def _backfilled(backfill: Backfilled, at: float | None, clock: Clock) -> str:
    when = f" at {clock(at)}" if at else ""
    return f"A backfill fired it{when}, for it had not run at its time: begun by {told_of(backfill)}."


def _retried(entry: LedgerEntry, retried: Retried, clock: Clock) -> str:
    """Who had it tried again; and what had become of it before, where its attempts do not say so."""
    before = ""
    if retried.code == reasons.CANCELLED:
        before = f" It had been cancelled{f' by {retried.detail}' if retried.detail else ''}."
    return f"{retried.by or 'Somebody'} had it tried again at {clock(retried.at)}.{before}"


def told_of(backfill: Backfilled) -> str:
    """Who began a backfill, and why."""
    return f"{backfill.by or 'somebody'}{f': {backfill.reason}' if backfill.reason else ''}"


def state_of(entry: LedgerEntry) -> str:
    """The state for people: one that is fired either waits or runs."""
    return entry.state if entry.state != "fired" else "waiting" if entry.started_ms is None else "running"


def became(what: str) -> str:
    """What a count of a job's slots says. Those that a backfill has fired since stay counted as skipped or missed."""
    return f"{what} when due" if what in ("skipped", "missed") else what


def took(entry: LedgerEntry) -> str:
    """How long it ran, `-` if that is not known."""
    if entry.started_ms is None or entry.ended_ms is None or entry.state == "lost":  # when it ended, nobody saw
        return "-"
    return brief(entry.ended_ms - entry.started_ms)


def _took(attempt: Attempt) -> str:
    return "" if attempt.ended_at is None else f" after {brief(round((attempt.ended_at - attempt.started_at) * 1000))}"


def _late(lateness: Lateness | None, entry: LedgerEntry) -> str:
    """By what it began later than its slot."""
    if lateness is None or entry.at_ms is None:
        return ""
    jitter, firing, overlap, queue = lateness
    parts = {
        "{} held back by its jitter": jitter,
        "{} until an instance fired it": firing,
        "{} in line behind the one before": overlap,
        "{} until a worker began it": queue,
    }
    told = [text.format(brief(ms)) for text, ms in parts.items() if ms]
    late = jitter + firing + (overlap or 0) + (queue or 0)
    who = "Its first attempt" if (entry.attempt or 0) > 1 and queue is not None else "It"
    verb = "was fired" if queue is None else "began"
    if not late:
        return f"{who} {verb} on time."
    return f"{who} {verb} {brief(late)} after its slot: {', '.join(told)}."


def of_instant(known: Facts, at_ms: int, clock: Clock = iso) -> Explanation:
    """Of an instant of which the ledger has no entry."""
    job, coming, paused, at = known.job, known.next, known.paused, clock(at_ms / 1000)

    def say(what: str, text: str, code: str | None = None) -> Explanation:
        return Explanation(job.name, at_ms, what, text, code)

    called = isinstance(job.trigger, Called)
    trigger = job.trigger.slots if isinstance(job.trigger, Called) and job.trigger.slots is not None else job.trigger
    if found := no_slot(trigger, at_ms):
        before, after = trigger.prev(at_ms), trigger.next(at_ms)
        near = " and ".join(clock(ms / 1000) for ms in (before, after) if ms is not None)
        why = "; ".join(one.why for one in found)
        text = f"{at} is no slot of {job.name} ({job.trigger}): {why}. The nearest: {near or 'none'}."
        return replace(say("no_slot", text, found[0].code), before_ms=before, after_ms=after)
    if known.retired_at is not None and at_ms >= known.retired_at * 1000:
        text = f"{at} is skipped if {job.name} is not declared again before: it is {retired(known.retired_at, clock)}."
        return say("to_be_skipped", text, reasons.RETIRED)
    if paused and at_ms >= (paused.at or 0) * 1000 and (coming is None or at_ms < coming.slot_ms):
        code = reasons.PAUSED if paused.what == PAUSE else reasons.SKIP_NEXT
        if at_ms > known.now * 1000:
            text = f"{at} is skipped if {job.name} is not resumed before: it is {pause(paused, clock)}."
        else:
            told = f"{at} was not fired: {job.name} is {pause(paused, clock)}"
            text = f"{told}. It is skipped if the job is resumed without catching up."
        return say("to_be_skipped", text, code)
    if called and at_ms > known.now * 1000:
        ahead = span(at_ms / 1000 - known.now)
        return say("to_come", f"{at} has not come due: it is in {ahead}, and who calls for it first runs it, by lockbeat exec.")
    if at_ms > known.now * 1000:
        return _to_come(known, at_ms, clock)
    if coming is not None and coming.slot_ms == at_ms and coming.due_ms / 1000 >= known.now - TOLERANCE:
        held = coming.due_ms / 1000 - known.now
        if held > 0:
            return say("held_back", f"{at} of {job.name} is held back by its jitter for another {span(held)}.")
        return say("due", f"{at} of {job.name} has just come due, and is not fired yet.")
    if coming is not None and coming.slot_ms <= at_ms:
        nobody = "" if known.served else " No instance schedules: start one, with lockbeat run MODULE:BEAT."
        late = span(known.now - at_ms / 1000)
        text = f"{at} of {job.name} is overdue by {late}: no instance has fired it; when one does, catch-up {job.catchup} applies"
        return say("overdue", f"{text}.{nobody}")
    if known.oldest_ms is not None and at_ms < known.oldest_ms:
        begins = f"the ledger of {job.name} begins at {clock(known.oldest_ms / 1000)}"
        return say("forgotten", f"Nothing is known of {at}: {begins}; {keeps(job)}.")
    if called:
        return say("uncalled", f"{at} of {job.name} has not run: nobody has called for it, by lockbeat exec; or {keeps(job)}.")
    text = f"Nothing is known of {at}: {job.name} was not declared then, or by another definition. Its ledger: {keeps(job)}."
    return say("not_declared", text)


def of_none(known: Facts, clock: Clock = iso) -> Explanation:
    """Of a job of which no instant was named, which has no entry, and no slot to come."""
    job = known.job
    if known.retired_at is not None:
        text = f"{job.name} is {retired(known.retired_at, clock)}."
        return Explanation(job.name, None, "to_be_skipped", text, reasons.RETIRED)
    if isinstance(job.trigger, ByHand):
        how = "called, by lockbeat exec" if isinstance(job.trigger, Called) else "triggered"
        return Explanation(job.name, None, "no_slots", f"{job.name} has no slots: it runs when it is {how}.")
    if known.paused:
        return Explanation(job.name, None, "to_be_skipped", f"{job.name} is {pause(known.paused, clock)}.", reasons.PAUSED)
    return Explanation(job.name, None, "ended", f"{job.name} has ended, and fired nothing: it was declared after its last slot.")


def linked(told: Explanation, template: str | None) -> Explanation:
    """With the link to the logs of its latest attempt, if it has one."""
    entry = told.entry
    if template is None or entry is None or not entry.attempts_made:
        return told
    last = entry.attempts_made[-1]
    ended_ms = None if last.ended_at is None else round(last.ended_at * 1000)
    url = link(
        template,
        task_id=entry.run or entry.task_id,
        job=entry.job,
        slot=None if entry.run else iso(entry.slot_ms / 1000),
        slot_ms=None if entry.run else entry.slot_ms,
        attempt=last.number,
        fence=last.fence,
        owner=last.owner,
        started_ms=round(last.started_at * 1000),
        ended_ms=ended_ms,
    )
    return replace(told, log_url=url)


def of_unknown_run(job: str, run: str) -> Explanation:
    """Of a run that was triggered, and of which the store has nothing."""
    text = f"Nothing is known of {run}: a triggered run is known for a week after it has ended."
    return Explanation(job, None, "forgotten", text)


def _to_come(known: Facts, at_ms: int, clock: Clock) -> Explanation:
    job, coming, at = known.job, known.next, clock(at_ms / 1000)
    left = None if job.limit is None else job.limit - known.fired
    if coming is None or at_ms < coming.slot_ms:
        ended = f"{job.name} has ended" + (f", as it was fired {known.fired} times" if left is not None and left <= 0 else "")
        what = "beyond_limit" if left is not None and left <= 0 else "ended"
        return Explanation(job.name, at_ms, what, f"{at} is not fired: {ended}.")
    if left is not None and (left <= 0 or job.trigger.count(coming.slot_ms - 1, at_ms, left) is None):
        text = f"{at} comes after the job's limit: {job.name} is to be fired {job.limit} times, and {max(left, 0)} are left."
        return Explanation(job.name, at_ms, "beyond_limit", text)
    first = next(around.upcoming(job, at_ms, known.closed))
    ahead = f"{at} has not come due: it is in {span(at_ms / 1000 - known.now)}"
    if first.calendar:
        return Explanation(job.name, at_ms, reasons.EXCLUDED, f"{ahead}, and {first.why}.", reasons.EXCLUDED)
    due_ms = plan.due(job, at_ms, job.trigger.next(at_ms))
    held = f", and its jitter holds it back until {clock(due_ms / 1000)}" if due_ms > at_ms else ""
    return Explanation(job.name, at_ms, "to_come", f"{ahead}{held}.")


def keeps(job: Job) -> str:
    """How long its ledger keeps an entry."""
    age = "" if job.keep_for_ms is None else f", and none for longer than {span(job.keep_for_ms / 1000)}"
    return f"it keeps {job.keep} entries{age}"


def retired(at: float, clock: Clock = iso) -> str:
    """That a job has retired, and when."""
    return f"retired at {clock(at)}: no instance that lives declares it"


def pause(change: Change, clock: Clock = iso) -> str:
    """By whom a job is paused, since when, until when, and why."""
    what = "paused" if change.what == PAUSE else "skipping"
    until = f" until {clock(change.until_at)}" if change.until_at else ""
    at = f" at {clock(change.at)}" if change.at else ""
    return f"{what}{until}, by {change.by or 'somebody'}{at}{f': {change.reason}' if change.reason else ''}"
