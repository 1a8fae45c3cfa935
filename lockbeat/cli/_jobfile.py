"""Jobs as people write them in a file, JSON or TOML: read into what `lb.jobs.apply` takes."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lockbeat.cli._errors import Usage
from lockbeat.cli._input import text_of
from lockbeat.errors import InvalidArgument, InvalidTrigger, InvalidType
from lockbeat.jobs import Job, JobOptions
from lockbeat.retry import retry_from_json
from lockbeat.triggers import AnyOf, At, ByHand, Cron, Every, Solar, Trigger
from lockbeat.values.visible import visible

TRIGGERS = {
    "cron": ("timezone", "gap", "fold", "days"),
    "every": ("anchor",),
    "at": (),
    "solar": ("lat", "lon"),
    "any_of": (),
}
"""What says when a job's slots are, and what goes with each."""
CALLED = {"expression": "cron", "period": "every", "when": "at"}
"""What a trigger calls its first argument, and a file the trigger itself."""
OPTIONS = {
    "name",
    "function",
    "origin",
    *JobOptions.__annotations__,
    *TRIGGERS,
    *(word for more in TRIGGERS.values() for word in more),
}


def read_jobs(file: str) -> list[Job]:
    """The jobs of a file, a list or what its `jobs` has; `-`: JSON from stdin. Raises Usage."""
    where = "stdin" if file == "-" else file
    try:
        text = text_of(file)
        data = tomllib.loads(text) if file.endswith(".toml") else json.loads(text, object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as problem:
        raise Usage(f"{where} can't be read: {problem}") from None
    found = data.get("jobs") if isinstance(data, Mapping) and data.keys() == {"jobs"} else data
    if not isinstance(found, list):
        raise Usage(f'{where} has no list of jobs: write [[jobs]] in TOML, {{"jobs": [...]}} or [...] in JSON')
    return [_named(where, number, said) for number, said in enumerate(found, 1)]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which would let the last of two win: a second list of jobs would have the first pruned."""
    said = dict(pairs)
    if len(said) < len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"{twice!r} stands twice in one object")
    return said


def _named(where: str, number: int, said: Any) -> Job:
    """A job of a file; what is wrong with it is said with its place."""
    name = said.get("name") if isinstance(said, Mapping) else None
    try:
        if not isinstance(said, Mapping):
            raise InvalidType("job", f"must be a table of its options, not {said!r}")
        return job_of(said)
    except InvalidArgument as problem:
        raise Usage(f"{where}: job {number}{f', {visible(str(name))}' if name else ''}: {problem}") from None


def job_of(said: Mapping[str, Any]) -> Job:
    """A job from its options by name: `cron`, `every`, `at` or `any_of`, and those that `Job.declare` takes.

    Raises: InvalidArgument, InvalidType.
    """
    options = dict(said)
    for unknown in sorted(options.keys() - OPTIONS):
        near = difflib.get_close_matches(unknown, sorted(OPTIONS), 1)
        raise InvalidArgument(unknown, f"no such option of a job{f'; did you mean {near[0]!r}?' if near else ''}")
    if (name := options.pop("name", None)) is None:
        raise InvalidArgument("name", "the job has none")
    try:
        trigger = _trigger(options)
    except InvalidTrigger as problem:
        raise InvalidTrigger(CALLED.get(problem.argument, problem.argument), problem.problem) from None
    for instant in options.keys() & {"start", "end"}:
        options[instant] = _time(instant, options[instant])
    if isinstance(options.get("retry"), Mapping):
        options["retry"] = retry_from_json(options["retry"])
    return Job.declare(name, trigger, **options)


def _trigger(options: dict[str, Any]) -> Trigger:
    """What says when the slots are, taken out of the options."""
    given = sorted(options.keys() & TRIGGERS.keys())
    if len(given) > 1:
        raise InvalidArgument(given[1], f"can't go with {given[0]}: any_of has several")
    kind = given[0] if given else None
    said: Any = options.pop(kind) if kind else None
    more = {word: options.pop(word) for word in TRIGGERS.get(kind or "", ()) if word in options}
    for strange in sorted(options.keys() & {word for words in TRIGGERS.values() for word in words}):
        raise InvalidArgument(strange, f"can't go with {kind}" if kind else "goes with a trigger, and there is none")
    if kind == "cron":
        return Cron(said, **more)
    if kind == "every":
        return Every(said, _time("anchor", more["anchor"]) if "anchor" in more else None)
    if kind == "at":
        return At(_time("at", said))
    if kind == "solar":
        return Solar(said, more.get("lat"), more.get("lon"))
    if kind is None:
        return ByHand()
    if not isinstance(said, list) or not all(isinstance(one, Mapping) for one in said):
        raise InvalidType("any_of", 'must be a list of triggers, such as [{"cron": "0 9 * * *"}, {"every": 3600}]')
    return AnyOf(*map(_one_of_several, said))


def _one_of_several(said: Mapping[str, Any]) -> Trigger:
    options = dict(said)
    trigger = _trigger(options)
    if options or isinstance(trigger, ByHand):
        raise InvalidArgument("any_of", f"has what is no trigger: {dict(said)!r}")
    return trigger


def _time(argument: str, said: Any) -> Any:
    """An instant as ISO 8601, or as TOML has it."""
    as_it_goes = "write it as 2030-01-31T12:00:00+01:00"
    try:
        when = datetime.fromisoformat(said) if isinstance(said, str) else said
    except ValueError:
        raise InvalidArgument(argument, f"{said!r} is no time; {as_it_goes}") from None
    if isinstance(when, datetime) and when.tzinfo is None:
        raise InvalidArgument(argument, f"{when.isoformat()} has no time zone; {as_it_goes}")
    return when
