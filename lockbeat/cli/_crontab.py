"""A crontab, line by line: which of its lines call a command, and the same line with `lockbeat exec` in front of it. Pure."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from lockbeat.errors import InvalidTrigger
from lockbeat.triggers import Cron

FIELDS = re.compile(r"\s*(@\w+|(?:[^\s@#]\S*\s+){4}[^\s@]\S*)\s+(\S.*?)\s*")
VARIABLE = re.compile(r"""\s*["']?(\w+)["']?\s*=\s*(.*?)\s*""")
PLAIN = re.compile(r"[A-Za-z0-9_.:/-]+")
WRAPPERS = {"env", "nice", "ionice", "time", "timeout", "exec", "sh", "bash", "python", "python3", "php", "node", "ruby", "flock"}
"""Commands whose names say nothing of what they run."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a crontab."""

    number: int
    text: str
    """As it stands there."""
    name: str = ""
    """Of the job; empty: the line calls no command, or is left as it is."""
    slot: str = ""
    timezone: str = ""
    wrapped: str = ""
    """The line as it is to be."""
    left: str = ""
    """Why a line that calls a command is left as it is."""


def read(text: str, *, timezone: str, system: bool) -> Iterator[Line]:
    """The lines of a crontab.

    timezone: of its schedules, until a line CRON_TZ=ZONE says another. system: with a column for the user.
    """
    taken: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if variable := VARIABLE.fullmatch(line):
            if variable[1] == "CRON_TZ":
                timezone = variable[2].strip("\"'")
            yield Line(number, line)
            continue
        found = FIELDS.fullmatch(line)
        if found is None or line.lstrip().startswith("#"):
            yield Line(number, line)
            continue
        when, command = " ".join(found[1].split()), found[2]
        user = ""
        if system:
            user, _, command = command.partition(" ")
            command = command.strip()
        if why := _left(when, command, timezone):
            yield Line(number, line, left=why)
            continue
        name = _named(command)
        taken[name] = taken.get(name, 0) + 1
        name = name if taken[name] == 1 else f"{name}-{taken[name]}"
        options = f"--slot {shlex.quote(when)}" + (f" --timezone {timezone}" if timezone != "UTC" else "")
        call = f"lockbeat exec {shlex.quote(name)} {options} -- sh -c {shlex.quote(command)}"
        yield Line(number, line, name, when, timezone, f"{found[1]} {user}{user and ' '}{call}")


def _left(when: str, command: str, timezone: str) -> str:
    """Why a line is left as it is; empty: it is not."""
    if when == "@reboot":
        return "@reboot is each host's own"
    if re.search(r"(?<!\\)%", command):
        return "a % is a new line there: put what it feeds to the command into a script"
    if not command:
        return "it has no command"
    if re.search(r"\blockbeat\s+exec\b", command):
        return "it calls lockbeat exec already"
    try:
        Cron(when, timezone)
    except InvalidTrigger as problem:
        return problem.problem
    return ""


def _named(command: str) -> str:
    """A name by the first word that says what is run; else a digest."""
    for word in re.split(r"[\s;&|()<>]+", re.sub(r"^cd\s+\S+\s*&&", "", command)):
        base = word.strip("'\"").rpartition("/")[2]
        if base and base not in WRAPPERS and "=" not in base and not base.startswith(("-", "$")) and not base.isdigit():
            base = re.sub(r"\.\w{1,4}$", "", base) or base
            if PLAIN.fullmatch(base):
                return base
    return hashlib.blake2b(command.encode(), digest_size=4).hexdigest()
