"""Fence guards: values that refuse a writer who has been overtaken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lockbeat.store import Store
from lockbeat.values.checks import MOST_FENCE, whole
from lockbeat.values.names import check_name
from lockbeat.values.payloads import dump, load


@dataclass(frozen=True, slots=True)
class FencedValue:
    """What was last written under a name."""

    value: Any
    fence: int
    """The newest fence that wrote it, or was let in by `check` since."""


class Fenced:
    """Values in the store that only the newest fence may write: `lb.fenced`.

    name: non-empty str of at most 1,024 bytes in UTF-8.
    fence: of a lease, claim, attempt or run, all of which must be for the same thing.

    A refusal is a value, False: somebody has owned that thing since, stop.

    A name is remembered for 30 days after it was last written or checked, and with it what was written. That forgets no refusal:
    where nothing is known, a fence that was minted more than 30 days ago is refused as well.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def set(self, name: str, value: Any, *, fence: int) -> bool:
        """Write a JSON value of at most 1 MiB, unless a newer fence has written under the name (`fenced/set`).

        The same fence may write again. From then on every older one is refused.
        """
        return await self._write(name, dump("value", value), fence)

    async def delete(self, name: str, *, fence: int) -> bool:
        """Remove the value, on the same terms; the fence stays, so that none older brings it back (`fenced/set`)."""
        return await self._write(name, "", fence)

    async def check(self, name: str, fence: int) -> bool:
        """Let the fence in, on the same terms, and write nothing (`fenced/check`).

        For what can't compare fences by itself, such as sending a mail. A newer owner may come between this answer and what
        follows it: where the target can compare, let it.
        """
        return bool(await self._call("fenced/check", name, fence=whole("fence", fence, 1, MOST_FENCE)))

    async def get(self, name: str) -> FencedValue | None:
        """What was last written; None: nothing, or it was deleted (`fenced/get`)."""
        fence, value = await self._call("fenced/get", name)
        if not value:
            return None
        store = self._store
        return FencedValue(load(value, store.keys.key(store.shard_of(name), "fenced:NAME", name)), fence)

    async def _write(self, name: str, text: str, fence: int) -> bool:
        return bool(await self._call("fenced/set", name, fence=whole("fence", fence, 1, MOST_FENCE), value=text))

    async def _call(self, script: str, name: str, **args: Any) -> Any:
        check_name("name", name)
        return await self._store.call_named(script, self._store.shard_of(name), name, **args)
