"""Options that were not given as arguments: from the environment, else from pyproject.toml, else their defaults.

`LOCKBEAT_CONCURRENCY=20`, or `concurrency = 20` under [tool.lockbeat]. The file is the working directory's, or the one that
$LOCKBEAT_CONFIG names.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lockbeat.errors import InvalidArgument
from lockbeat.values.durations import read_span

FILE = "pyproject.toml"


class _Unset(Enum):
    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


Unset = Literal[_Unset.UNSET]
UNSET: Unset = _Unset.UNSET
"""An argument that was not given, where None says something."""
_FLAGS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def _flag(name: str, text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise InvalidArgument(name, f"must be true or false, not {text!r}")
    return _FLAGS[text.lower()]


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(name, f"must be a whole number, not {text!r}") from None


def _span_or_none(name: str, text: str) -> float | None:
    return None if text.lower() == "none" else read_span(name, text)


def _text(name: str, text: str) -> str:
    return text


@dataclass(frozen=True, slots=True)
class Setting:
    """One option, and how its text is read."""

    default: Any
    read: Callable[[str, str], Any]
    what: str
    none_says: bool = False
    """None is a value of it: an argument that was not given is UNSET."""


SETTINGS = {
    "url": Setting("embedded://", _text, "the store"),
    "namespace": Setting("lockbeat", _text, "the part of the store"),
    "owner": Setting(None, _text, "this instance's name; else one that is unique per process start"),
    "shards": Setting(None, _number, "how many shards the store is to have; else what it has"),
    "timeout": Setting(5.0, read_span, "seconds after which the store counts as away"),
    "queue": Setting("default", _text, "where a beat's jobs put their tasks"),
    "concurrency": Setting(100, _number, "how many functions run at once in an instance"),
    "grace": Setting(10.0, read_span, "seconds that running functions get to end on shutdown"),
    "stall": Setting(60.0, _span_or_none, "seconds for which the event loop may stand still; none: for ever", True),
    "log_url": Setting(None, _text, "where the logs of a run are: https://HOST/?q={task_id}"),
    "wait_for_store": Setting(True, _flag, "false: start though the store is away"),
}
"""What `Lockbeat` and `Beat` take. Commands' own options are in tables of theirs: `[tool.lockbeat.exec]`, $LOCKBEAT_EXEC_TTL."""


@dataclass(frozen=True, slots=True)
class Found:
    """The value of an option, and where it came from."""

    name: str
    """As an error calls it: the option's, or $NAME."""
    value: Any
    source: str
    """argument, $NAME, the file's path, or default."""


def variable(*words: str) -> str:
    """The environment variable of an option."""
    return "_".join(["LOCKBEAT", *words]).upper().replace("-", "_")


def found(name: str, argument: Any = UNSET) -> Found:
    """An option of `SETTINGS`. UNSET: it was not given as an argument; None says the same, but where it is a value.

    Raises InvalidArgument for text that can't be read; it names where that stands.
    """
    setting = SETTINGS[name]
    if argument is not UNSET and (argument is not None or setting.none_says):
        return Found(name, argument, "argument")
    if text := os.environ.get(variable(name), "").strip():
        where = f"${variable(name)}"
        return Found(where, setting.read(where, text), where)
    path, table = configured()
    if name in table:
        where = f"{name} in [tool.lockbeat] of {path}"
        return Found(where, _from_file(where, setting, table[name]), str(path))
    return Found(name, setting.default, "default")


def all_found(**arguments: Any) -> dict[str, Found]:
    """Several options, by name."""
    return {name: found(name, argument) for name, argument in arguments.items()}


def _from_file(where: str, setting: Setting, value: Any) -> Any:
    if not isinstance(value, str | bool | int | float):
        raise InvalidArgument(where, f"must be a string or a number, not {type(value).__name__}")
    return setting.read(where, str(value).lower() if isinstance(value, bool) else str(value))


def configured() -> tuple[Path | None, Mapping[str, Any]]:
    """The file, and what its table says: options, and tables of commands. (None, {}): there is none.

    Raises InvalidArgument for a file that can't be read, and for an option that there is not.
    """
    named = os.environ.get("LOCKBEAT_CONFIG", "").strip()
    path = Path(named) if named else Path(FILE)
    try:
        state = path.stat()
    except OSError as problem:
        if named:
            raise InvalidArgument("LOCKBEAT_CONFIG", f"{named} can't be read: {problem.strerror}") from None
        return None, {}
    return path.absolute(), _table(path.absolute(), state.st_mtime_ns, state.st_size, bool(named))


def _is_meant(path: Path) -> bool:
    """Whether a file that can't be read has a table of ours: to go by the defaults might be to serve another store."""
    try:
        return b"tool.lockbeat" in path.read_bytes()
    except OSError:
        return False


@cache
def _table(path: Path, _changed: int, _size: int, named: bool) -> Mapping[str, Any]:
    try:
        # As editors write it: on Windows some put a mark before it.
        table = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("tool", {}).get("lockbeat", {})
    except (OSError, ValueError, AttributeError) as problem:
        if not named and not _is_meant(path):
            return {}  # whoever owns the file will be told by what reads it first
        raise InvalidArgument("LOCKBEAT_CONFIG" if named else FILE, f"{path} can't be read: {problem}") from None
    if not isinstance(table, dict):
        raise InvalidArgument("tool.lockbeat", f"must be a table in {path}")
    for name, value in table.items():
        if name not in SETTINGS and not isinstance(value, dict):
            near = difflib.get_close_matches(name, SETTINGS, 1)
            raise InvalidArgument(
                name, f"no such option in [tool.lockbeat] of {path}{f'; did you mean {near[0]}?' if near else ''}"
            )
    return table
