"""Runs functions of the Lua files as tables in, tables out, without a server.

    lua = Decisions("_lib/task", now=5_000)
    assert lua.call("retry_delay", "id", {"type": "fixed", "seconds": 2}, 1) == 2000

Text is bytes in Lua: a `str` here has one character for each ("\\xff" is the byte 255), and `text()` makes one of real text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest

import lockbeat

SCRIPTS = Path(lockbeat.__file__).parent.parent / "scripts_lua"
_NEEDS = re.compile(r"^-- (?:include|needs): (.+)", re.MULTILINE)
_LOCALS = re.compile(r"^local (?:function )?([\w, ]+)", re.MULTILINE)
_KEY = re.compile(r"^-- KEYS\[\d+\] +(\S+)", re.MULTILINE)
Server = Callable[..., Any]


class Unasked(AssertionError):
    """A function that was to decide by itself has called the server."""


def nobody(command: str, *args: Any) -> Any:
    """In place of a server: whoever calls it is no pure function."""
    raise Unasked(f"the server was called: {command} {args}")


def text(words: str) -> str:
    """As Lua sees it: a character for each byte of UTF-8."""
    return words.encode().decode("latin-1")


class Decisions:
    """Lua files, loaded with what they need, as one script would.

    Of a script that decides in its body, what stands above its last `return` is loaded.
    now: what TIME says, in ms. server: is asked `(command, *args)` in place of one, TIME excepted.
    """

    def __init__(
        self,
        *files: str,
        now: int = 1_800_000_000_000,
        keys: Sequence[str] = (),
        argv: Sequence[Any] = (),
        server: Server = nobody,
    ) -> None:
        self.now, self.server = now, server
        self.lua = lupa.lua51.LuaRuntime(encoding="latin-1", unpack_returned_tuples=True, register_eval=False)
        loaded: dict[str, str] = {}
        for name in files:
            self._load(name, loaded)
        body = "\n".join(loaded.values())
        declared = [name for found in loaded.values() for name in _KEY.findall(found)]
        names = sorted({word for group in _LOCALS.findall(body) for word in group.replace(" ", "").split(",")} - {"", "_"})
        seen = self.lua.globals()
        seen.os = None  # Redis 7.0 has none
        seen.KEYS, seen.ARGV = self.table(list(keys) or declared), self.table([str(one) for one in argv])
        seen.redis = self.lua.table_from(
            {"call": self._command, "pcall": self._command, "error_reply": self._error, "log": lambda *_: None, "LOG_WARNING": 3}
        )
        seen.cjson = self.lua.table_from({"encode": self._encode, "decode": lambda said: self.table(json.loads(said))})
        # As globals: a script is made without what it does not reach, but here all is, and Lua takes 200 locals.
        body = re.sub(r"^local (?:(?=function |[\w, ]+ = )|[\w, ]+(?:--.*)?$)", "", body, flags=re.MULTILINE)
        self._named = self.lua.execute(f"{body}\nreturn {{{', '.join(f'{name} = {name}' for name in names)}}}")

    def _load(self, name: str, loaded: dict[str, str]) -> None:
        if name in loaded:
            return
        found = (SCRIPTS / f"{name}.lua").read_text()
        for needed in _NEEDS.findall(found):
            for library in needed.split():
                self._load(library, loaded)
        if not name.startswith("_lib/"):
            found = found[: found.rindex("\nreturn ") + 1]
        loaded[name] = found

    def _command(self, command: str, *args: Any) -> Any:
        if command.upper() == "TIME":
            return self.table([str(self.now // 1000), str(self.now % 1000 * 1000)])
        if command.upper() == "HGET":  # a page asks so for one field: to a server here it is the same
            return (plain(self._command("HMGET", *args)) or [False])[0]
        said = self.server(command, *(plain(one) for one in args))
        return False if said is None else self.table(said)

    def _error(self, words: str) -> Any:
        return self.table({"err": words})

    def _encode(self, value: Any) -> str:
        return json.dumps(plain(value), separators=(",", ":"))

    def table(self, value: Any) -> Any:
        """The value as Lua has it. A function keeps a table that it was given: make it here, and look at it with `plain`."""
        if isinstance(value, dict):
            return self.lua.table_from({key: self.table(one) for key, one in value.items() if one is not None})
        if isinstance(value, (list, tuple)):
            return self.lua.table_from([self.table(one) for one in value])
        if callable(value) and lupa.lua51.lua_type(value) is None:
            return lambda *args: self.table(value(*(plain(one) for one in args)))
        return value

    def value(self, name: str) -> Any:
        """What a local of the files holds."""
        return plain(self._named[name])

    def call(self, name: str, *args: Any) -> Any:
        """What the local function answers; several values are a tuple, and an error of its own is raised as LuaError."""
        function = self._named[name]
        assert function is not None, f"no local function {name!r}"
        said = function(*(self.table(one) for one in args))
        return tuple(plain(one) for one in said) if isinstance(said, tuple) else plain(said)


def plain(value: Any) -> Any:
    """A table of Lua as a list or a dict (an empty one: a list); all else as it is."""
    if lupa.lua51.lua_type(value) != "table":
        return int(value) if isinstance(value, float) and value.is_integer() else value
    keys = list(value.keys())
    if set(keys) == set(range(1, len(keys) + 1)):
        return [plain(value[n + 1]) for n in range(len(keys))]
    return {plain(key): plain(value[key]) for key in keys}


LuaError = lupa.lua51.LuaError


def unreadable(entry: str) -> Any:
    """`with unreadable("KEY\\xffFIELD"):` the body meets what can't be read there."""
    return pytest.raises(LuaError, match=re.escape(f"LOCKBEAT_UNREADABLE {entry}"))
