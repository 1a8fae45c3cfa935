"""fakeredis runs a script in a third of the time: it would compile it anew each time, look through all globals at each command,
and collect garbage after each. What scripts do, and what they may not, is the same.
"""

from __future__ import annotations

from typing import Any

from fakeredis.commands_mixins import scripting_mixin

COLLECT = b"collectgarbage()"
EVERY = 200
"""Runs between two collections."""
_WATCH = b"""
  local set = false
  setmetatable(_G, {__newindex = function(all, name, value) set = true; rawset(all, name, value) end})
  return function() return set end
"""
_lua: Any = scripting_mixin.LUA_MODULE


class _Globals:
    """Those of a runtime, as fakeredis asks for them: by their names alone."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._names = [*_lua.LuaRuntime.globals(runtime).keys()]
        self._is_another_set = runtime.compile(_WATCH)()

    def keys(self) -> list[bytes]:
        if self._is_another_set():
            return [*_lua.LuaRuntime.globals(self._runtime).keys()]
        return self._names

    def __setitem__(self, name: Any, value: Any) -> None:
        _lua.LuaRuntime.globals(self._runtime)[name] = value


class _Runtime(_lua.LuaRuntime):  # type: ignore[misc]
    """Keeps what it has compiled, and knows whether a global was added."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._compiled: dict[bytes, Any] = {}
        self._globals: _Globals | None = None
        self._runs = 0

    def execute(self, code: Any, *args: Any) -> Any:
        if code == COLLECT.decode():
            self._runs += 1
            if self._runs % EVERY:
                return None
        chunk = self._compiled.get(code)
        if chunk is None:
            chunk = self._compiled[code] = self.compile(code)
        return chunk(*args)

    def globals(self) -> Any:
        if self._globals is None:
            self._globals = _Globals(self)
        return self._globals


class _Module:
    """lupa's, but for its runtime."""

    LuaRuntime = _Runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(_lua, name)


def install() -> None:
    """From now on, in this process."""
    scripting_mixin.LUA_MODULE = _Module()  # type: ignore[assignment]
