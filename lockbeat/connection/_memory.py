"""memory://: fakeredis, which runs the same scripts. A named store is shared within the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockbeat.errors import MissingExtra
from lockbeat.process import forks

if TYPE_CHECKING:
    from fakeredis import FakeAsyncRedis, FakeServer

_servers: dict[str, FakeServer] = {}
_lock = forks.OwnLock()


def memory_server(name: str | None) -> FakeServer:
    """The store of a name, the same one for the whole process; without a name a new one, shared with nobody.

    Raises MissingExtra.
    """
    fake = _fakeredis()
    with _lock():
        server: FakeServer = _servers.get(name or "") or fake.FakeServer()
        if name is not None:
            _servers[name] = server
    return server


def forget_memory_server(name: str) -> None:
    """The next who names it finds an empty store."""
    with _lock():
        _servers.pop(name, None)


def client(server: FakeServer) -> FakeAsyncRedis:
    made: FakeAsyncRedis = _fakeredis().FakeAsyncRedis(server=server, decode_responses=False, protocol=2)
    return made


def _fakeredis() -> Any:
    try:
        import fakeredis
        import lupa  # noqa: F401 - without it fakeredis has no EVAL
    except ImportError as error:
        raise MissingExtra("memory:// needs fakeredis with Lua: pip install 'lockbeat[memory]'") from error
    return fakeredis
