"""What a lock, a claim and a task do, one call at a time, as models for `tests.history`.

The server's clock decides: a lease is live before its end and over from then on. Where no reply told the end of a lease, it is
kept as bounds, which are narrowed by who saw what. Bounds forget how two unknown times depend on each other: some wrong histories
pass, but no right one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

from tests.history import FAR, UNHEARD, Op


class Held(NamedTuple):
    """A lease, as far as its history tells."""

    owner: str
    token: int
    """The call that took it."""
    shared: bool
    """Its owner took it again by another call."""
    fence: int | None
    ends_from: int
    """It may be over from then on."""
    ends_by: int
    """It is surely over by then. The same where a reply told the end."""


class Key(NamedTuple):
    """All that a model knows of a key."""

    now: int
    """The server's clock shows at least this."""
    fence: int
    """The last that anybody was told."""
    held: Held | None
    attempt: int = 0
    """Of a claim or a task: which it is, or how many count."""
    state: str = ""
    """Of a claim: "" or done, for a while. Of a task: waiting, running, done, dead or cancelled; "": not spawned yet."""
    by: Any = None
    """Who it was done by."""
    until_from: int = 0
    """A claim is held as done until then, a task not claimable before; or so from then on,"""
    until_by: int = 0
    """and surely not after this."""

    @property
    def lease(self) -> Held:
        """What is held, where something is."""
        assert self.held is not None
        return self.held

    def split(self) -> tuple[Hashable, tuple[int, ...]]:
        """See `tests.history.State`."""
        held, ends = self.held, (0, 0)
        if held is not None:
            ends = held.ends_from, -held.ends_by
        return (self.fence, held and held[:4], self.attempt, self.state, self.by), (
            self.now,
            *ends,
            self.until_from,
            -self.until_by,
        )


class Model:
    """A method for each verb: every state in which the call can have left the key, answered as it was."""

    initial = Key(0, 0, None)

    def ran_at(self, op: Op) -> int | None:
        """When the call ran, where it was told the end of a lease."""
        return None

    def changed_nothing(self, op: Op) -> bool:
        """Whether the reply says so."""
        return op.verb in ("owner", "is_claimed", "get") or op.reply is False

    def step(self, state: Key, op: Op) -> Iterator[Key]:
        step: Iterator[Key] = getattr(self, op.verb)(state, op, **op.args)
        return step


class Locks(Model):
    """One lock."""

    def changed_nothing(self, op: Op) -> bool:
        return super().changed_nothing(op) or op.reply is None

    def ran_at(self, op: Op) -> int | None:
        if op.verb == "acquire" and isinstance(op.reply, tuple):
            return int(op.reply[1] - op.args["ttl"])
        return None

    def acquire(self, state: Key, op: Op, owner: str, ttl: int) -> Iterator[Key]:
        """Reply: (fence, end in ms), or None: another holds it."""
        if op.reply is None:
            yield from (seen for seen in live(state, op) if seen.lease.owner != owner)
            return
        if op.reply is UNHEARD:
            yield state
            fence, ends = None, bounds(state, op, ttl)
        else:
            fence, ends = op.reply[0], (op.reply[1], op.reply[1])
        for seen in free(state, op):
            yield from granted(seen, Held(owner, op.token, False, fence, *ends))
        for seen in live(state, op):
            if seen.lease.owner == owner and (fence is None or seen.lease.fence in (fence, None)):
                same = seen.lease.fence if fence is None else fence
                # A repeated call, too, counts as another: then its undoing leaves the lock alone, which the store need not do.
                yield from granted(seen, seen.lease._replace(shared=True, fence=same, ends_from=ends[0], ends_by=ends[1]))

    def enter(self, state: Key, op: Op, owner: str, ttl: int) -> Iterator[Key]:
        """A block that renews by itself: handles exclude each other. Reply: the fence, or None: held by another."""
        if op.reply is None:
            yield from live(state, op)
            return
        if op.reply is UNHEARD:
            yield state
        fence = None if op.reply is UNHEARD else op.reply
        for seen in free(state, op):
            yield from granted(seen, Held(owner, op.token, False, fence, seen.now + ttl, FAR))

    def leave(self, state: Key, op: Op, entered: int) -> Iterator[Key]:
        """The end of a block, which gives the lock back even when it is cancelled. Reply: whether it was held to the end."""
        if op.again:
            yield state
        mine = [seen for seen in live(state, op) if seen.lease.token == entered]
        if op.reply is not False:
            yield from (seen._replace(held=None) for seen in mine)
        elif not mine:
            yield state

    def undo(self, state: Key, op: Op, entered: int) -> Iterator[Key]:
        """What follows a cancelled call: ends what that call itself took, unless its owner took it again since."""
        yield from free(state, op)
        for seen in live(state, op):
            mine = seen.lease.token == entered and not seen.lease.shared
            yield seen._replace(held=None) if mine else seen

    def release(self, state: Key, op: Op, owner: str) -> Iterator[Key]:
        """Reply: whether it was held by the owner, and no longer is."""
        return self.changed(state, op, owner, lambda seen: seen._replace(held=None))

    def renew(self, state: Key, op: Op, owner: str, ttl: int) -> Iterator[Key]:
        """Reply: whether the owner holds it, and does so for another ttl."""
        return self.changed(state, op, owner, lambda seen: renewed(seen, op, ttl))

    def changed(self, state: Key, op: Op, owner: str, change: Callable[[Key], Key]) -> Iterator[Key]:
        if op.reply is UNHEARD:
            yield state
        if op.reply is not True:
            yield from free(state, op)
        for seen in live(state, op):
            mine = seen.lease.owner == owner
            if op.reply in (mine, UNHEARD):
                yield change(seen) if mine else seen

    def release_all(self, state: Key, op: Op, owner: str) -> Iterator[Key]:
        """Told for all keys at once, so nothing is told of this one. After it the owner does not hold it."""
        yield from free(state, op)
        for seen in live(state, op):
            yield seen._replace(held=None) if seen.lease.owner == owner else seen

    def owner(self, state: Key, op: Op) -> Iterator[Key]:
        """Reply: who holds it, or None."""
        if op.reply is UNHEARD:
            yield state
        elif op.reply is None:
            yield from free(state, op)
        else:
            yield from (seen for seen in live(state, op) if seen.lease.owner == op.reply)


class Claims(Model):
    """One unit of work."""

    def changed_nothing(self, op: Op) -> bool:
        return super().changed_nothing(op) or (isinstance(op.reply, tuple) and op.reply[0] != "claim")

    def ran_at(self, op: Op) -> int | None:
        if op.verb == "acquire" and isinstance(op.reply, tuple) and op.reply[0] == "claim":
            return int(op.reply[2] - op.args["lease"])
        return None

    def acquire(self, state: Key, op: Op, owner: str, lease: int) -> Iterator[Key]:
        """Reply: ("claim", fence, end, attempt, previous owner), ("busy", owner, end) or ("done", owner, until)."""
        match op.reply:
            case "busy", holder, end:
                yield from (told_end(seen, end) for seen in live(state, op) if seen.lease.owner == holder and may_end(seen, end))
            case "done", holder, until:
                yield from (
                    seen._replace(until_from=until, until_by=until)
                    for seen in held_done(state, op)
                    if seen.by == holder and seen.now < until and seen.until_from <= until <= seen.until_by
                )
            case "claim", fence, end, attempt, previous:
                for seen in (*over(state, op), *claimable(state, op)):
                    if (attempt, previous) == (seen.attempt + 1, seen.held and seen.held.owner) and fence > seen.fence:
                        held = Held(owner, op.token, False, fence, end, end)
                        yield Key(seen.now, fence, held, attempt)
            case _:
                yield state
                for seen in (*over(state, op), *claimable(state, op)):
                    yield Key(
                        seen.now, seen.fence, Held(owner, op.token, False, None, *bounds(seen, op, lease)), seen.attempt + 1
                    )

    def undo(self, state: Key, op: Op, entered: int) -> Iterator[Key]:
        """What follows a cancelled acquire: it began no work, so that it ran out makes no difference."""
        for seen in at_any_time(state, op):
            mine = seen.held is not None and seen.held.token == entered
            yield seen._replace(held=None, attempt=seen.attempt - 1) if mine else seen

    def renew(self, state: Key, op: Op, fence: int, lease: int) -> Iterator[Key]:
        """Reply: whether that claim is live, and is so for another lease."""
        if op.reply is UNHEARD:
            yield state
        if op.reply is not False:
            yield from (renewed(seen, op, lease) for seen in live(state, op) if seen.lease.fence == fence)
        else:
            yield from refused(state, op, fence, live_only=True)

    def complete(self, state: Key, op: Op, fence: int, hold: int) -> Iterator[Key]:
        """Reply: whether that claim was the newest and unfinished; it may have run out."""
        yield from self.ended(state, op, fence, lambda seen: self.done(seen, op, hold))

    def done(self, state: Key, op: Op, hold: int) -> Key:
        first, last = bounds(state, op, hold)
        return state._replace(
            held=None, attempt=0, state="done", by=state.held and state.held.owner, until_from=first, until_by=last
        )

    def fail(self, state: Key, op: Op, fence: int) -> Iterator[Key]:
        """Reply: as of complete. The attempt counts."""
        yield from self.ended(state, op, fence, lambda seen: seen._replace(held=None))

    def ended(self, state: Key, op: Op, fence: int, end: Callable[[Key], Key]) -> Iterator[Key]:
        if op.reply is UNHEARD:
            yield state
        if op.reply is not False:
            yield from (end(seen) for seen in at_any_time(state, op) if seen.held and seen.held.fence == fence)
        else:
            yield from refused(state, op, fence, live_only=False)

    def release(self, state: Key, op: Op, fence: int) -> Iterator[Key]:
        """Reply: whether that claim was live. Its attempt does not count."""
        if op.reply is UNHEARD:
            yield state
        if op.reply is not False:
            for seen in live(state, op):
                if seen.lease.fence == fence:
                    yield seen._replace(held=None, attempt=seen.attempt - 1)
        else:
            yield from refused(state, op, fence, live_only=True)

    def release_all(self, state: Key, op: Op, owner: str) -> Iterator[Key]:
        """As release, for all keys at once: told is only how many there were."""
        yield from over(state, op)
        yield from nobody(state, op)
        for seen in live(state, op):
            yield seen._replace(held=None, attempt=seen.attempt - 1) if seen.lease.owner == owner else seen

    def cleanup(self, state: Key, op: Op) -> Iterator[Key]:
        """What ran out is ended, on all keys."""
        yield from (seen._replace(held=None, attempt=0) for seen in over(state, op))
        yield from nobody(state, op)
        yield from live(state, op)

    def is_claimed(self, state: Key, op: Op) -> Iterator[Key]:
        """Reply: (owner, fence, attempt, end), or None."""
        match op.reply:
            case None:
                yield from over(state, op)
                yield from nobody(state, op)
            case owner, fence, attempt, end:
                for seen in live(state, op):
                    known = seen.lease.fence == fence or (seen.lease.fence is None and fence > seen.fence)
                    if known and (seen.lease.owner, seen.attempt) == (owner, attempt) and may_end(seen, end):
                        yield seen._replace(fence=fence, held=seen.lease._replace(fence=fence, ends_from=end, ends_by=end))
            case _:
                yield state


class Tasks(Model):
    """One task, that is tried again at once when an attempt failed, up to `most` attempts.

    An attempt that ran out is taken back by whichever claim or spawn comes next, on whatever task: at any time, as seen from one.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def changed_nothing(self, op: Op) -> bool:
        # A refused attempt gives up the lease of a task that was cancelled, and a heartbeat renews it.
        return op.verb == "get" or op.reply in ("expired", "not the owner")

    def ran_at(self, op: Op) -> int | None:
        match op.verb, op.reply:
            case "claim", (_, _, int(end)):
                return end - int(op.args["lease"])
            case "heartbeat", int(end):
                return end - int(op.args["lease"])
        return None

    def spawn(self, state: Key, op: Op) -> Iterator[Key]:
        """Every task is spawned once."""
        if op.reply is UNHEARD:
            yield state
        if state.state == "":
            for seen in self.met(state, op):
                yield seen._replace(state="waiting")

    def claim(self, state: Key, op: Op, owner: str, lease: int) -> Iterator[Key]:
        """Reply: (fence, attempt, end), or None: it asked for all there were, and this was not among them."""
        if op.reply is UNHEARD:
            yield state
        for seen in self.met(state, op):
            if op.reply is None:
                if seen.state != "waiting" and not (seen.state == "running" and run_out(seen)):
                    yield seen
                elif seen.state == "waiting" and seen.now < seen.until_by:  # put off until then
                    yield seen._replace(until_from=max(seen.until_from, seen.now + 1))
                continue
            now = max(seen.now, seen.until_from)
            if seen.state != "waiting" or now > op.latest:
                continue
            attempt = seen.attempt + 1
            if op.reply is UNHEARD:
                held = Held(owner, op.token, False, None, now + lease, min(op.latest + lease, FAR))
                yield Key(now, seen.fence, held, attempt, "running")
            else:
                fence, told, end = op.reply
                if told == attempt and fence > seen.fence:
                    yield Key(now, fence, Held(owner, op.token, False, fence, end, end), attempt, "running")

    def met(self, state: Key, op: Op) -> Iterator[Key]:
        """What a call can find."""
        yield from nobody(state, op)
        yield from live(state, op)
        for seen in over(state, op):
            yield seen
            yield self.lost(seen)

    def lost(self, state: Key) -> Key:
        """The attempt is over; it counts."""
        if state.state != "running":
            return state._replace(held=None)
        return again(state, 0, 0) if state.attempt < self.most else state._replace(held=None, state="dead")

    def give_back(self, state: Key, op: Op, entered: int) -> Iterator[Key]:
        """What follows a cancelled claim: the attempt does not count."""
        for seen in self.met(state, op):
            if seen.held and seen.held.token == entered:
                yield (
                    again(seen._replace(attempt=seen.attempt - 1), 0, 0) if seen.state == "running" else seen._replace(held=None)
                )
            else:
                yield seen

    def heartbeat(self, state: Key, op: Op, fence: int, lease: int) -> Iterator[Key]:
        """Reply: the new end, or why it was refused. What was cancelled is renewed all the same, until its body has stopped."""
        if op.reply is UNHEARD:
            yield state
        for seen in live(state, op):
            if seen.lease.fence == fence:
                if isinstance(op.reply, int) and seen.state == "running":
                    yield told_end(seen, op.reply)
                elif op.reply is UNHEARD or (op.reply == "cancelled" and seen.state == "cancelled"):
                    yield renewed(seen, op, lease)
        for seen in self.met(state, op):
            mine = seen.held is not None and seen.held.fence == fence
            if op.reply == "not the owner" and seen.held and not mine:
                yield seen
            if op.reply == "cancelled" and seen.state == "cancelled" and (run_out(seen) if mine else not seen.held):
                yield seen
            if op.reply == "expired" and (mine and run_out(seen) and seen.state == "running"):
                yield seen
            if op.reply == "expired" and seen.held is None and seen.state != "cancelled":
                yield seen

    def complete(self, state: Key, op: Op, fence: int) -> Iterator[Key]:
        """Reply: whether that attempt was the newest, or had completed the task."""
        if op.reply is UNHEARD:
            yield state
        for seen in self.met(state, op):
            mine = seen.held is not None and seen.held.fence == fence
            ends = mine and seen.state == "running"
            if op.reply in (ends or (not seen.held and seen.by == fence), UNHEARD):
                yield seen._replace(held=None, state="done", by=fence) if ends else seen._replace(held=None) if mine else seen

    def fail(self, state: Key, op: Op, fence: int) -> Iterator[Key]:
        """Reply: requeued, dead_lettered or refused."""
        if op.reply is UNHEARD:
            yield state
        for seen in self.met(state, op):
            mine = seen.held is not None and seen.held.fence == fence
            if mine and seen.state == "running":
                after = self.lost(seen)
                if op.reply in ("requeued" if after.state == "waiting" else "dead_lettered", UNHEARD):
                    yield after
            elif op.reply in ("refused", UNHEARD):
                yield seen._replace(held=None) if mine else seen

    def defer(self, state: Key, op: Op, fence: int, delay: int) -> Iterator[Key]:
        """Given back uncounted, for nobody to claim for a while. Reply: whether that attempt was the newest."""
        if op.reply is UNHEARD:
            yield state
        for seen in self.met(state, op):
            mine = seen.held is not None and seen.held.fence == fence
            if op.reply in (mine and seen.state == "running", UNHEARD):
                if mine and seen.state == "running":
                    yield again(seen._replace(attempt=seen.attempt - 1), *(bounds(seen, op, delay) if delay else (0, 0)))
                else:
                    yield seen._replace(held=None) if mine else seen

    def cancel(self, state: Key, op: Op) -> Iterator[Key]:
        """Reply: whether it had not ended. The attempt keeps its lease until its body has stopped."""
        if op.reply is UNHEARD:
            yield state
        for seen in self.met(state, op):
            unfinished = seen.state in ("waiting", "running")
            if op.reply in (unfinished, UNHEARD):
                yield seen._replace(state="cancelled") if unfinished else seen

    def release_all(self, state: Key, op: Op, owner: str) -> Iterator[Key]:
        """All attempts of an owner are over, as if they had run out."""
        for seen in self.met(state, op):
            yield self.lost(seen) if seen.held and seen.held.owner == owner else seen

    def get(self, state: Key, op: Op) -> Iterator[Key]:
        """Reply: (state, attempts)."""
        if op.reply is UNHEARD:
            yield state
        else:
            yield from (seen for seen in self.met(state, op) if (seen.state, seen.attempt) == op.reply)


def bounds(state: Key, op: Op, ttl: int) -> tuple[int, int]:
    """When a lease ends that the call set anew, at a time that nobody was told."""
    return max(state.now, op.earliest) + ttl, min(op.latest + ttl, FAR)


def granted(state: Key, held: Held) -> Iterator[Key]:
    """The lease is `held` from now on, if its fence grows, or stays with the same lease."""
    same = state.held is not None and state.held.fence == held.fence
    if held.fence is None or same or held.fence > state.fence:
        yield state._replace(held=held, fence=max(state.fence, held.fence or 0))


def told_end(state: Key, end: int) -> Key:
    """The lease ends then."""
    return state._replace(held=state.lease._replace(ends_from=end, ends_by=end))


def may_end(state: Key, end: int) -> bool:
    """Whether the lease may end then."""
    return state.now < end and state.lease.ends_from <= end <= state.lease.ends_by


def again(state: Key, first: int, last: int) -> Key:
    """A task waits for its next attempt, which nobody may begin before a time between the two."""
    return state._replace(held=None, state="waiting", until_from=first, until_by=last)


def renewed(state: Key, op: Op, ttl: int) -> Key:
    """The lease ends a ttl after the call ran."""
    first, last = bounds(state, op, ttl)
    return state._replace(held=state.lease._replace(ends_from=first, ends_by=last))


def live(state: Key, op: Op) -> Iterator[Key]:
    """The state, if the call can have found the lease live."""
    now = max(state.now, op.earliest)
    if now <= op.latest and state.held is not None and now < state.held.ends_by:
        yield state._replace(now=now, held=state.held._replace(ends_from=max(state.held.ends_from, now + 1)))


def free(state: Key, op: Op) -> Iterator[Key]:
    """The state, if the call can have found no live lease."""
    now = max(state.now, op.earliest, state.held.ends_from if state.held else 0)
    if now <= op.latest:
        yield state._replace(now=now, held=None)


def over(state: Key, op: Op) -> Iterator[Key]:
    """The state, if the call can have found a lease that had run out."""
    if state.held is not None:
        now = max(state.now, op.earliest, state.held.ends_from)
        if now <= op.latest:
            yield state._replace(now=now, held=state.held._replace(ends_by=min(state.held.ends_by, op.latest)))


def run_out(state: Key) -> bool:
    """Whether what is held is over by now."""
    return state.held is not None and state.held.ends_from <= state.now


def nobody(state: Key, op: Op) -> Iterator[Key]:
    """The state, if nobody holds it, live or run out."""
    if state.held is None:
        yield from at_any_time(state, op)


def at_any_time(state: Key, op: Op) -> Iterator[Key]:
    """The state, whatever the time is."""
    now = max(state.now, op.earliest)
    if now <= op.latest:
        yield state._replace(now=now)


def refused(state: Key, op: Op, fence: int, *, live_only: bool) -> Iterator[Key]:
    """The state, if a call for that claim can have been refused."""
    if state.held is None or state.held.fence != fence:
        yield from at_any_time(state, op)
    elif live_only:
        yield from over(state, op)


def held_done(state: Key, op: Op) -> Iterator[Key]:
    """The state, if the call can have found the work done, and held so."""
    if state.held is None and state.state == "done":
        now = max(state.now, op.earliest)
        if now <= op.latest and now < state.until_by:
            yield state._replace(now=now, until_from=max(state.until_from, now + 1))


def claimable(state: Key, op: Op) -> Iterator[Key]:
    """The state, if the call can have found nobody at the work, and it not held as done."""
    if state.held is None:
        now = max(state.now, op.earliest, state.until_from if state.state == "done" else 0)
        if now <= op.latest:
            yield state._replace(now=now, state="", by=None, until_from=0, until_by=0)
