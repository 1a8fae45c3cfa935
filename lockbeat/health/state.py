"""How an instance stands: what it is at, and what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Literal, NamedTuple

from lockbeat.errors import ScriptError, StoreError
from lockbeat.health.turning import Turning
from lockbeat.store.wakeup import Turns

Phase = Literal["idle", "starting", "serving", "draining", "ended"]
"""idle: nothing was started yet. draining: it was asked to end, and lets what runs end. ended: it serves no more."""

LOOPS = ("event loop", "heartbeat", "firing", "claiming")
LIMIT = 60.0
"""Seconds."""
SHORT = 5.0
"""Seconds after which an instance that does not turn, or that the store does not answer, is not ready."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe is answered."""

    ok: bool
    phase: Phase
    problems: tuple[str, ...] = ()
    """What is wrong, a sentence each; none: it is well."""


class Sign(NamedTuple):
    """A loop of the instance that has to turn."""

    doing: str
    """"firing", "claiming", "the heartbeat"."""
    turns: Turns
    excused: bool = False
    """It has nothing to do: there is no room for more."""


class Serves:
    """What the health of an instance is read from while it serves."""

    def signs(self) -> Iterable[Sign]:
        """The loops that have to turn."""
        return ()

    def away(self) -> bool:
        """Whether the store is known to be away."""
        return False

    def unanswered(self, now: float) -> float:
        """Seconds for which the store has not answered what the instance asks it every few seconds."""
        return 0.0

    def owed(self, now: float) -> tuple[str, float] | None:
        """The slot that was handed to this instance for longest, and that it has not fired: it, and for how many seconds."""
        return None


class Health:
    """How an instance stands. Any thread may ask; nothing is sent to the store for it.

    limit: seconds without a turn, or with a due slot unfired, after which the instance is not live.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self.phase: Phase = "idle"
        self.lagged: Callable[[float], object] | None = None
        """Told how many seconds the event loop took to turn when it was asked to, once a second while somebody watches."""
        self.changed: Callable[[Phase], object] | None = None
        """Told of each phase that begins."""
        self._served = False
        self._turning: Turning | None = None
        self._serves = Serves()

    # -- told by what serves

    def starting(self) -> None:
        """Called in the event loop that will serve."""
        self._turning, self._served = Turning(asyncio.get_running_loop(), self._lagged), False
        self._begin("starting")

    def serving(self, serves: Serves) -> None:
        self._serves, self._served = serves, True
        self._begin("serving")

    def draining(self) -> None:
        if self.phase == "serving":
            self._begin("draining")

    def ended(self) -> None:
        self._serves = Serves()
        self._begin("ended")

    def _begin(self, phase: Phase) -> None:
        self.phase = phase
        if self.changed is not None:
            self.changed(phase)

    def _lagged(self, seconds: float) -> None:
        if self.lagged is not None:
            self.lagged(seconds)

    # -- asked by probes

    def still(self, *, watching: bool = False) -> float:
        """Seconds for which the event loop has not turned; see `Turning.look`."""
        return 0.0 if self._turning is None or self.phase == "ended" else self._turning.look(watching=watching)

    def live(self) -> Verdict:
        """Whether to let it be. Not so: its event loop or one of its own loops stands still, or a slot is not fired.

        That the store is away is no reason: to start it anew would not bring the store back.
        """
        problems = []
        if self.phase == "ended":
            problems.append("it serves no more")
        if (still := self.still()) >= self.limit:
            problems.append(f"the event loop has not turned for {still:.0f} s")
        elif self.phase == "serving":
            problems += self._stuck()
        return Verdict(not problems, self.phase, tuple(problems))

    def _stuck(self) -> list[str]:
        problems, now = [], monotonic()
        serves, away = self._serves, self._serves.away()
        resumed_at = self._turning.resumed_at if self._turning is not None else now
        for sign in serves.signs():
            turns = sign.turns
            late = min(turns.late(now), now - resumed_at)
            if late >= self.limit and not sign.excused and not away:
                problems.append(f"{sign.doing} has not turned for {late:.0f} s")
            since, problem = turns.failing_since, turns.problem
            if since is not None and problem is not None and not isinstance(problem, StoreError) and now - since >= self.limit:
                problems.append(f"{sign.doing} has failed for {now - since:.0f} s: {problem!r}")
        if (owed := serves.owed(now)) is not None and owed[1] >= self.limit and not away:
            problems.append(f"{owed[0]} was due, and has not been fired for {owed[1]:.0f} s")
        return problems

    def late(self) -> dict[str, float]:
        """For how many seconds each loop has been in one turn, or should have begun the next; 0: it turns as it should."""
        found, now = dict.fromkeys(LOOPS, 0.0), monotonic()
        found["event loop"] = self.still()
        for sign in self._serves.signs():
            if not sign.excused:
                name = sign.doing.removeprefix("the ")
                found[name] = max(found[name], sign.turns.late(now))
        return found

    def ready(self) -> Verdict:
        """Whether it takes its share of the work: it serves, turns, and reaches the store."""
        problems = []
        if self.phase == "starting":
            problems.append("it has not begun to serve: has it reached the store?")
        elif self.phase != "serving":
            problems.append({"idle": "it was not started", "draining": "it shuts down"}.get(self.phase, "it serves no more"))
        if (still := self.still()) >= SHORT:
            problems.append(f"the event loop has not turned for {still:.0f} s")
        elif self.phase == "serving":
            problems += self._cut_off()
        return Verdict(not problems, self.phase, tuple(problems))

    def _cut_off(self) -> list[str]:
        """Why the store is not to be relied on."""
        if self._serves.away():
            return ["the store is away"]
        if (silent := self._serves.unanswered(monotonic())) >= SHORT:
            return [f"the store has not answered for {silent:.0f} s"]
        for sign in self._serves.signs():
            problem = sign.turns.problem
            # What can't be read in the store is no outage: the others go on.
            if isinstance(problem, StoreError) and not isinstance(problem, ScriptError):
                return [f"{sign.doing} fails: {problem}"]
        return []

    def started(self) -> Verdict:
        """Whether it has begun to serve, ever since it was started."""
        problem = () if self._served else ("it has not begun to serve",)
        return Verdict(not problem, self.phase, problem)
