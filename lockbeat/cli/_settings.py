"""Options of commands by environment and file: `LOCKBEAT_EXEC_TTL=5m`, or `ttl = "5m"` under [tool.lockbeat.exec].

The order is: argument, environment, file, default. A command that opens a store by itself goes by $LOCKBEAT_NAMESPACE as well,
which is said for all. Those that serve a beat leave that to the beat.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lockbeat.errors import InvalidArgument
from lockbeat.settings import configured, variable

FOR_ALL = ("namespace", "utc")
"""Options that are said once for every command which has them; --url goes by what `Lockbeat` finds."""
OF_AN_INSTANCE = ("health-port", "metrics-port", "bind")
"""Options that are said once for those that serve a beat, and for `check`, by the environment alone."""
OF_A_BEAT = ("run", "beat", "worker", "plan")
NEVER = ("help", "version", "yes", "install-completion", "show-completion")
"""Options that a person gives at the moment."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command."""

    path: tuple[str, ...]
    """Of the command: ("calendars", "put")."""
    name: str
    """As it is typed, without its dashes."""
    param: Any
    """typer's."""

    @property
    def variables(self) -> list[str]:
        """The environment variables that say it, the first that is set."""
        own = variable(*self.path, self.name)
        shared = self.name in OF_AN_INSTANCE or (self.name in FOR_ALL and self.path[0] not in OF_A_BEAT)
        return [own, variable(self.name)] if shared else [own]


def options(command: Any, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Those of a command, and of the commands within it, that can be configured."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, (*path, name))
    for param in command.params if path else ():
        if param.param_type_name == "option":
            name = max(param.opts, key=len).lstrip("-")
            if name not in NEVER:
                yield Option(path, name, param)


def configure(command: Any) -> None:
    """Have typer's commands look at the environment, and at the file. Raises InvalidArgument for what the file has wrong."""
    path, table = configured()
    known = list(options(command))
    for option in known:
        option.param.envvar, option.param.show_envvar = option.variables, False
    command.context_settings["default_map"] = _defaults(known, table, str(path))


def _defaults(known: list[Option], table: Mapping[str, Any], path: str) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for option in known:
        if len(option.variables) > 1 and option.name in table:
            _inner(defaults, option.path)[option.param.name] = table[option.name]
    for words, name, value in _leaves(table):
        named = {option.name: option for option in known if option.path == words}
        if name.replace("_", "-") not in named:
            where = ".".join(["tool.lockbeat", *words])
            if not named:
                raise InvalidArgument(where, f"there is no command {' '.join(words)!r} with options ({path})")
            near = difflib.get_close_matches(name, named, 1)
            raise InvalidArgument(name, f"no such option in [{where}] of {path}{f'; did you mean {near[0]}?' if near else ''}")
        _inner(defaults, words)[named[name.replace("_", "-")].param.name] = value
    return defaults


def _leaves(table: Mapping[str, Any], words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """What is said of commands: the command, the option, its value."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*words, name))
        elif words:
            yield words, name, value


def _inner(defaults: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for word in path:
        defaults = defaults.setdefault(word, {})
    return defaults


def source(command: Any, args: Sequence[str], name: str) -> str | None:
    """Where a command's option of that name comes from, if nobody typed it: "$LOCKBEAT_..." or the file. None: from elsewhere."""
    name = name.lstrip("-").replace("_", "-")
    words = [word for word in args if not word.startswith("-")]
    found = [option for option in options(command) if option.name == name and words[: len(option.path)] == [*option.path]]
    if not found or any(word.partition("=")[0] in found[0].param.opts for word in args):
        return None
    for one in found[0].variables:
        if os.environ.get(one):
            return f"${one}"
    path, table = configured()
    in_file = any(words == found[0].path and one.replace("_", "-") == name for words, one, _ in _leaves(table))
    return f"{name} in [tool.lockbeat.{'.'.join(found[0].path)}] of {path}" if in_file else None


def said(command: Any) -> Iterator[tuple[str, Any, str]]:
    """What environment and file say of commands' own options: name, value, source."""
    path, table = configured()
    leaves = {(words, name.replace("_", "-")): value for words, name, value in _leaves(table)}
    for option in options(command):
        own = option.variables[0]
        if os.environ.get(own):
            yield " ".join([*option.path, f"--{option.name}"]), os.environ[own], f"${own}"
        elif (option.path, option.name) in leaves:
            yield " ".join([*option.path, f"--{option.name}"]), leaves[option.path, option.name], str(path)
