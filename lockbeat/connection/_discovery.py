"""Which server to connect to: sentinels are asked for the primary, cluster nodes for the owner of a slot."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from lockbeat.connection.final import ALONE, DENIALS, NO_SENTINEL, SeveralAway, is_final

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
    """Whom one sentinel takes for the service's primary.

    Raises redis' ConnectionError when it knows none, AuthenticationError when it will not tell us; each names the sentinel.
    """
    named = f"sentinel {sentinel[0]}:{sentinel[1]}"
    try:
        answer = await _ask_node(sentinel, to, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    except DENIALS as problem:
        theirs = "the sentinels' own are sentinel_username=, sentinel_password="
        raise AuthenticationError(f"{named}: {problem} ({theirs})") from problem
    except (RedisError, OSError) as problem:
        said = NO_SENTINEL if "unknown command" in str(problem) else str(problem)
        raise RedisConnectionError(f"{named}: {said}") from problem
    if answer is None:
        raise RedisConnectionError(f"{named} knows no primary of service {service!r}")
    return _text(answer[0]), int(answer[1])


def why_none(troubles: Sequence[Exception]) -> Exception:
    """What to raise where nobody could help: what is final, where all are; else what each had to say, once."""
    if troubles and all(map(is_final, troubles)):
        return troubles[0]
    return SeveralAway("; ".join(dict.fromkeys(map(str, troubles))) or "no sentinel")


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
    troubles: list[Exception] = []
    for host, port in in_turn(seeds, silent):
        try:
            ranges = await _ask_node((host, port), to, "CLUSTER", "SLOTS")
        except (RedisError, OSError) as error:
            alone = "cluster support disabled" in str(error) or "unknown command" in str(error)
            said = ALONE if alone else str(error)
            troubles.append(error if isinstance(error, DENIALS) else RedisConnectionError(f"{host}:{port}: {said}"))
            continue
        owners = [(start, end, (_name(node, host), int(node[1]))) for start, end, node, *_ in ranges]
        found = next((node for start, end, node in owners if start <= slot <= end), None)
        if found is not None:
            silent.pop((host, port), None)
            return found, sorted({node for _, _, node in owners})
        troubles.append(RedisConnectionError(f"{host}:{port} sees no owner of slot {slot}"))
    reason = why_none(troubles)
    raise reason if is_final(reason) else SeveralAway(f"no cluster node could be asked ({reason})")


def _name(node: Sequence[Any], asked: str) -> str:
    """The host of a node of CLUSTER SLOTS. One that does not know its own leaves it empty: it is the one that was asked."""
    name = _text(node[0])
    if name == "?":  # it is to be known by a host name, and has none: its address stands beside
        beside = node[3] if len(node) > 3 else []
        name = _text(dict(zip(beside[::2], beside[1::2], strict=False)).get(b"ip"))
    return name or asked


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
