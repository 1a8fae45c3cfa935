"""The options of a job: what the decorators take besides trigger and name, and what each may be. Pure: no store, no clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict, get_args

from lockbeat.calendars import check_calendar
from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.retry import Retry
from lockbeat.values.checks import of_type
from lockbeat.values.durations import TEN_YEARS, Seconds
from lockbeat.values.names import check_name

Overlap = Literal["skip", "allow", "buffer_one", "buffer_all", "cancel_other"]
Catchup = Literal["latest", "skip", "all"]
OVERLAPS, CATCHUPS = get_args(Overlap), get_args(Catchup)


class JobOptions(TypedDict, total=False):
    """What the decorators take besides the trigger and the name; see the fields of `Job`. Durations: seconds or timedelta."""

    queue: str
    overlap: Overlap
    catchup: Catchup
    window: Seconds | None
    jitter: Seconds
    timeout: Seconds | None
    max_attempts: int
    retry: Retry | None
    lease: Seconds
    priority: int
    keep: int
    keep_for: Seconds | None
    start: datetime | None
    end: datetime | None
    limit: int | None
    buffer: int
    cap: int
    pause_after: int | None
    description: str
    tags: Sequence[str]
    exclude: Sequence[str]
    params: Any


MOST_WAIT = 1000
MOST_FAILURES = 100
OF_SLOTS = ("catchup", "window", "cap", "jitter", "start", "end", "limit", "pause_after", "exclude")
"""Options that mean nothing to a job without a trigger."""
LONGEST_DESCRIPTION = 1000
MOST_TAGS = 50
LONGEST_KEPT_MS = round(TEN_YEARS * 1000)
MOST_EXCLUDED = 20
MOST_PARAMS = 16_384
"""Bytes of a job's params as JSON: they go with each of its tasks."""
CODE, API = "code", "api"
"""Who declared a job: a `Beat`, or somebody at run time who did not say another word."""


_ORIGIN = re.compile(r"[A-Za-z0-9._:/@+-]{1,100}")


def check_origin(argument: str, value: object) -> str:
    """A word that says who declares jobs. Raises InvalidArgument, InvalidType."""
    of_type(argument, value, str, "a str")
    if not _ORIGIN.fullmatch(str(value)):
        raise InvalidArgument(argument, "must be 1 to 100 letters, digits, or any of . _ : / @ + -")
    return str(value)


def checked_tags(tags: object) -> tuple[str, ...]:
    if tags == ():
        return ()
    if isinstance(tags, str) or not isinstance(tags, Sequence):
        raise InvalidType("tags", f"must be a list of str, not {type(tags).__name__}")
    if len(tags) > MOST_TAGS:
        raise InvalidArgument("tags", f"must be at most {MOST_TAGS}, not {len(tags)}")
    return tuple(dict.fromkeys(check_name("tags", tag) for tag in tags))


def checked_exclude(names: object) -> tuple[str, ...]:
    if names == ():
        return ()
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InvalidType("exclude", f"must be a list of names of calendars, not {type(names).__name__}")
    if len(names) > MOST_EXCLUDED:
        raise InvalidArgument("exclude", f"must be at most {MOST_EXCLUDED}, not {len(names)}")
    return tuple(dict.fromkeys(check_calendar("exclude", name) for name in names))
