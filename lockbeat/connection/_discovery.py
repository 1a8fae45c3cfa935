"""Which server to connect to: sentinels are asked for the primary, cluster nodes for the owner of a slot."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

Node = tuple[str, int]
Dial = Callable[[Node], AbstractConnection]
"""Makes a connection to a node, which is yet to be connected."""


async def connected(connection: AbstractConnection) -> AbstractConnection:
    """Connect and authenticate, or close what was half open. Raises redis' ConnectionError, TimeoutError, NoPermissionError."""
    # The name is for people, and no reason not to work where it is refused. redis-py would give up.
    name, connection.client_name = connection.client_name, None
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        if name:
            with contextlib.suppress(ResponseError):
                await ask(connection, "CLIENT", "SETNAME", name)
    except BaseException:  # cancellation too: the socket would outlive the only name it has
        await connection.disconnect(nowait=True)
        raise
    return connection


async def ask(connection: AbstractConnection, *command: str) -> Any:
    """One command over a connection outside any pool, and its reply."""
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


def in_turn(nodes: Iterable[Node], silent: dict[Node, float]) -> Iterator[Node]:
    """Whom to ask, one after the other; those last that were asked before and have not answered.

    Whoever asks may be cancelled while one hangs: the next try then begins with another.
    """
    for node in sorted(nodes, key=lambda node: silent.get(node, 0.0)):
        silent[node] = time.monotonic()
        yield node


async def _ask_node(node: Node, to: Dial, *command: str) -> Any:
    link = await connected(to(node))
    try:
        return await ask(link, *command)
    finally:
        await link.disconnect(nowait=True)


async def master_address(sentinel: Node, service: str, to: Dial) -> Node:
    """Whom one sentinel takes for the service's primary. Raises redis' ConnectionError when it knows none."""
    answer = await _ask_node(sentinel, to, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    if answer is None:
        raise RedisConnectionError(f"sentinel {sentinel[0]}:{sentinel[1]} knows no primary of service {service!r}")
    return _text(answer[0]), int(answer[1])


async def is_primary(connection: AbstractConnection) -> bool:
    """Whether the server takes itself for a primary. One that forbids ROLE to its user is believed to be."""
    try:
        role = await ask(connection, "ROLE")
    except ResponseError:
        return True
    return _text(role[0]) == "master"


async def slot_owner(seeds: Iterable[Node], slot: int, to: Dial, silent: dict[Node, float]) -> tuple[Node, list[Node]]:
    """The primary that owns a slot, and all primaries, as the first seed that answers sees the cluster.

    Raises redis' ConnectionError when no seed answers or nobody owns the slot.
    """
    reasons: list[str] = []
    denials: list[RedisError] = []
    for host, port in in_turn(seeds, silent):
        try:
            ranges = await _ask_node((host, port), to, "CLUSTER", "SLOTS")
        except (RedisError, OSError) as error:
            reasons.append(f"{host}:{port}: {error}")
            denials += [error] if isinstance(error, (AuthenticationError, NoPermissionError)) else []
            continue
        # A node that does not know its own name leaves it empty: it is the one that was asked.
        owners = [(start, end, (_text(node[0]) or host, int(node[1]))) for start, end, node, *_ in ranges]
        found = next((node for start, end, node in owners if start <= slot <= end), None)
        if found is not None:
            silent.pop((host, port), None)
            return found, sorted({node for _, _, node in owners})
        reasons.append(f"{host}:{port} sees no owner of slot {slot}")
    if denials and len(denials) == len(reasons):
        raise denials[0]
    raise RedisConnectionError(f"no cluster node could be asked ({'; '.join(reasons)})")


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
