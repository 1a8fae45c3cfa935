"""What clients asked of the store and were told, and whether any order of events explains it.

Each call took effect at one instant between asking and being told; one whose reply was never heard took effect later, or never.
`explain` looks for an order of those instants that a model of one key accepts, as Wing and Gong (1993) do it, remembering what
was tried as Lowe (2017) does. Linearizability is local: each key is judged alone. Knows nothing of lockbeat but what it promises.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from operator import le
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

FAR: Final = 1 << 53
"""Milliseconds: later than anything."""
DRIFT_MS: Final = 2
"""How far two clocks of one machine may part during a test."""


class _Unheard(Enum):
    UNHEARD = "unheard"

    def __repr__(self) -> str:
        return "?"


UNHEARD: Final = _Unheard.UNHEARD
"""The reply of a call that was cancelled, or whose reply was lost."""


@dataclass(slots=True, eq=False)
class Op:
    """One call on one key."""

    key: str
    client: str
    verb: str
    args: dict[str, Any]
    called: float
    """Monotonic seconds."""
    returned: float = math.inf
    reply: Any = UNHEARD
    earliest: int = 0
    """The server's time in ms before which it can't have run."""
    latest: int = FAR
    after: Op | None = None
    """Sent behind this one on the same connection."""
    again: bool = False
    """It stands for an earlier sending of a call that was repeated, and may never have reached the store."""
    number: int = 0
    """Its place in the history."""

    @property
    def token(self) -> int:
        """Stands for the call's id, where another call may name it."""
        return -1 if self.again else self.number

    def __str__(self) -> str:
        args = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        until = "..." if self.returned == math.inf else f"{self.returned * 1000:.1f}"
        return f"#{self.number} {self.called * 1000:.1f}-{until} ms {self.client}: {self.verb}({args}) -> {self.reply!r}"


class ServerClock:
    """Bounds of the server's clock, from replies that carried its time."""

    def __init__(self) -> None:
        self._ahead, self._behind = math.inf, -math.inf

    def sample(self, before: float, server_ms: int, after: float) -> None:
        """The server said `server_ms`, in whole milliseconds, between two monotonic times."""
        self._behind = max(self._behind, server_ms - after * 1000)
        self._ahead = min(self._ahead, server_ms + 1 - before * 1000)

    def earliest(self, monotonic_s: float) -> int:
        """The least that the server's clock can have shown."""
        return math.floor(monotonic_s * 1000 + self._behind) - DRIFT_MS

    def latest(self, monotonic_s: float) -> int:
        """The most that it can have shown."""
        return FAR if monotonic_s == math.inf else math.ceil(monotonic_s * 1000 + self._ahead) + DRIFT_MS


class History:
    """Records calls as they are made."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.clock = ServerClock()
        self.left_open: Counter[str] = Counter()
        """By key, the calls of which nobody will know whether and when they ran."""

    def call(self, client: str, key: str, verb: str, after: Op | None = None, **args: Any) -> Op:
        """A call is about to be made; `told` or `closed` says how it ended."""
        op = Op(key, client, verb, args, monotonic(), after=after, number=len(self.ops))
        self.ops.append(op)
        return op

    def told(self, op: Op, reply: Any) -> None:
        """The call was answered."""
        op.returned, op.reply = monotonic(), reply

    def closed(self, ops: Iterable[Op]) -> None:
        """By now they have taken effect or never will, though nobody heard."""
        for op in ops:
            op.returned = min(op.returned, monotonic())

    def also(self, op: Op, times: int) -> None:
        """The call was sent anew because its reply was lost: each earlier sending may have taken effect, too."""
        before = None  # they are all the same, so they may as well come in this order
        for _ in range(times):
            before = Op(
                op.key, op.client, op.verb, op.args, op.called, op.returned, after=before, again=True, number=len(self.ops)
            )
            self.ops.append(before)

    def keys(self) -> dict[str, list[Op]]:
        """The calls on each key, each with the server times between which it ran."""
        keys: dict[str, list[Op]] = {}
        for op in self.ops:
            op.earliest, op.latest = self.clock.earliest(op.called), self.clock.latest(op.returned)
            keys.setdefault(op.key, []).append(op)
        return keys


class State(Protocol):
    """What a model knows."""

    @property
    def now(self) -> int:
        """The server's clock shows at least this."""
        ...

    def split(self) -> tuple[Hashable, tuple[int, ...]]:
        """What must be the same, and numbers: a state that differs in smaller numbers alone allows all that this one does."""
        ...


S = TypeVar("S", bound=State)


class Model(Protocol[S]):
    """What one key does, one call at a time."""

    @property
    def initial(self) -> S: ...

    def ran_at(self, op: Op) -> int | None:
        """When the call ran, by the server's clock, where the reply tells."""
        ...

    def changed_nothing(self, op: Op) -> bool:
        """Whether the reply says that the call changed nothing."""
        ...

    def step(self, state: S, op: Op) -> Iterable[S]:
        """Every state that the call, answered as it was, can leave behind; none: it can't be answered so in this state."""
        ...


class Undecided(Exception):
    """The search grew too large: an order is neither found nor ruled out."""


@dataclass
class Unexplained(Generic[S]):
    """No order of the calls gives the replies."""

    done: list[Op]
    """The longest run of calls that could be put in an order."""
    state: S
    """What it leads to."""
    stuck: list[Op]
    """The calls of which one would have to come next."""

    def __str__(self) -> str:
        lines = [f"no order explains the replies on {self.stuck[0].key!r}; {len(self.done)} calls could be ordered, the last:"]
        lines += [f"  {op}" for op in self.done[-12:]]
        lines += [f"which leads to {self.state}", "and none of these can follow:"]
        lines += [f"  {op}" for op in self.stuck]
        return "\n".join(lines)


def explain(ops: Iterable[Op], model: Model[S], most: int = 50_000) -> Unexplained[S] | None:
    """None when some order of the calls explains all replies. Raises Undecided after `most` states."""
    return _Search(ops, model).run(most)


class _Search(Generic[S]):
    """A depth-first search. A node is which calls were put in order, all before `base` and those in `mask` (bit 0 is `base`), and
    the state that they lead to."""

    def __init__(self, ops: Iterable[Op], model: Model[S]) -> None:
        self.model = model
        self.calls = sorted(ops, key=lambda op: op.called)
        for op in self.calls:
            at = model.ran_at(op)
            if at is not None:
                op.earliest, op.latest = max(op.earliest, at), min(op.latest, at)
        self.place = {op.number: index for index, op in enumerate(self.calls)}
        self.seen: dict[tuple[int, int, Hashable], list[tuple[int, ...]]] = {}

    def run(self, most: int) -> Unexplained[S] | None:
        done: list[Op] = []
        start = (0, 0, self.model.initial)
        path = [self.moves(*start)]
        deepest, best, tried = start, list(done), 0
        while path:
            move = next(path[-1], None)
            if move is None:
                path.pop()
                if done:
                    done.pop()
                continue
            if move[0] is None:
                return None
            op, base, mask, state = move
            if self.known(base, mask, state):
                continue
            tried += 1
            if tried > most:
                raise Undecided(f"{most} states of {len(self.calls)} calls on {self.calls[0].key!r}")
            path.append(self.moves(base, mask, state))
            done.append(op)
            if len(done) > len(best):
                deepest, best = (base, mask, state), list(done)
        base, mask, state = deepest
        return Unexplained(best, state, self.left(base, mask))

    def known(self, base: int, mask: int, state: S) -> bool:
        """Whether what follows was tried before, from here or from where more was allowed."""
        what, numbers = state.split()
        tried = self.seen.setdefault((base, mask, what), [])
        if any(all(map(le, before, numbers)) for before in tried):
            return True
        tried.append(numbers)
        return False

    def left(self, base: int, mask: int) -> list[Op]:
        """Of the calls that are left, those made before any of them had returned."""
        limit, left = math.inf, []
        for index in range(base, len(self.calls)):
            call = self.calls[index]
            if call.called > limit:
                break
            if not mask >> (index - base) & 1:
                limit = min(limit, call.returned)
                left.append(call)
        return [call for call in left if call.called <= limit]

    def moves(self, base: int, mask: int, state: S) -> Iterator[tuple[Op, int, int, S] | tuple[None]]:
        """Each call that may come next, the most urgent first, with the node it leads to; None: the rest may never have run."""
        left = sorted(self.left(base, mask), key=lambda call: (call.latest, call.returned))
        if all(call.returned == math.inf for call in left):
            yield (None,)
        for call in left:
            place, behind = self.place[call.number] - base, self.place.get(call.after.number, -1) - base if call.after else -1
            if call.earliest > left[0].latest or not (behind < 0 or mask >> behind & 1):
                continue
            first, bits = base, mask | 1 << place
            while bits & 1:
                first, bits = first + 1, bits >> 1
            limit = min((other.latest for other in left[:2] if other is not call), default=FAR)
            for after in self.model.step(state, call):
                if after.now <= limit:
                    yield call, first, bits, after
                if after == state and call.reply is not UNHEARD and self.model.changed_nothing(call):
                    return  # the reply is right here, and proves nothing: then the call may as well come first
