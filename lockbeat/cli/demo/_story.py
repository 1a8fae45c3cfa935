"""The story: start, kill, bring back, freeze, thaw, stop; and clean up whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lockbeat.cli._errors import Problem, only_error, until_signalled
from lockbeat.cli._output import complain, is_terminal
from lockbeat.cli._store import quiet
from lockbeat.cli.demo import jobs
from lockbeat.cli.demo._cast import Member
from lockbeat.cli.demo._check import Effect, Verdict, judge, read_effects
from lockbeat.cli.demo._display import Display
from lockbeat.cli.demo._stage import Blow, Stage, slot_name
from lockbeat.client import Lockbeat
from lockbeat.monitor import engine, instances
from lockbeat.store.keys import job_lock

FRAME = 0.1
LOOK_BACK = 20
"""Ledger entries read at a time: more than can change between two looks."""
START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0


def show_demo(seconds: float, count: int) -> int:
    """Run it; the exit code: 1 when a slot was missed or doubled."""
    directory = Path(tempfile.mkdtemp(prefix="lockbeat-demo-"))
    url = f"embedded://{directory}/store"
    stage = Stage([Member(chr(ord("A") + at), directory, url) for at in range(count)], seconds)
    display = Display(stage, live=is_terminal())
    try:
        with quiet():
            return asyncio.run(_until_signalled(_Story(stage, display, directory, url)))
    except BaseExceptionGroup as group:
        raise only_error(group) from None
    finally:
        display.close()
        for member in stage.members:
            member.end()
        _remove(directory)


async def _until_signalled(story: _Story) -> int:
    """A signal cancels the story, so that what it started is ended."""
    with until_signalled() as ended:
        playing = asyncio.ensure_future(story.play())
        await asyncio.wait({playing, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            return playing.result()
        playing.cancel()
        await asyncio.wait({playing})
    story.display.close()
    complain("interrupted; the instances and the store are ended")
    return 128 + ended.result()


def _remove(directory: Path) -> None:
    """Again while it is there: who watches the embedded store may make its lock file anew meanwhile, as its last act."""
    for _ in range(50):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


class _Story:
    """One performance."""

    def __init__(self, stage: Stage, display: Display, directory: Path, url: str) -> None:
        self.display = display
        self._stage = stage
        self._effects = directory / "effects.jsonl"
        self._read_to = 0
        self._killed: set[int] = set()
        self._url = url
        self._lb: Lockbeat

    async def play(self) -> int:
        stage = self._stage
        async with Lockbeat(self._url) as self._lb:
            try:
                self.display.open()
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(self._watch())
                    await self._act()
                    watching.cancel()
            finally:
                # Before the store, which its last user ends; an interrupted demo does not wait for them.
                for member in stage.members:
                    member.end()
            stage.left_behind += [f"the lock {lease.key}" for lease in await self._lb.locks.list()]
            # Who could not say goodbye is forgotten in 30 s.
            left = [instance.owner for instance in await instances(self._lb.store) if instance.pid not in self._killed]
            stage.left_behind += [f"the instance {owner}" for owner in left]
            verdict = await self._judge()
        self.display.end(verdict)
        return 0 if verdict.sound and not stage.left_behind else 1

    # -- what is done

    async def _act(self) -> None:
        stage, length = self._stage, self._stage.seconds
        stage.tell(
            f"starting {len(stage.members)} instances of {len(stage.job_names)} jobs "
            f"on an embedded {await engine(self._lb.store)}"
        )
        for member in stage.members:
            member.start()
        for member in stage.members:
            await self._alive(member)
        pids = ", ".join(f"{member.name} (pid {member.pid})" for member in stage.members)
        stage.tell(f"all alive, all run the beat: {pids}")
        begins = math.ceil(time.time() + 0.1)
        stage.begin(begins)

        await self._at(begins + length * 0.18)
        killed = await self._strike("kill -9")
        await self._at(begins + length * 0.40)
        killed.start()
        await self._alive(killed)
        stage.tell(f"{killed.name} is back, as a new instance (pid {killed.pid})")

        await self._at(begins + length * 0.47)
        frozen = await self._strike("freeze")
        frozen_for = max(length * 0.22, jobs.LEASE * 1.35)
        await self._at(stage.blows[-1].at + frozen_for)
        frozen.thaw()
        held = ": its lease is long gone" if stage.blows[-1].held else ""
        stage.tell(f"SIGCONT to {frozen.name} after {frozen_for:.1f} s{held}", "bright_blue")

        await self._at(begins + length + 0.3)
        await self._until(self._is_settled, 3.0)
        await self._stop()

    async def _strike(self, verb: str) -> Member:
        """Hit the instance that holds the slow job's lock, once one does; after a while any."""
        stage = self._stage

        def holder() -> Member | None:
            name = stage.letters.get(stage.lock.owner) if stage.lock else None
            found = next((member for member in stage.members if member.name == name and member.condition == "alive"), None)
            # Not in the moment in which slots come due: what it is doing then is a matter of luck.
            return found if 0.3 < time.time() % 1 < 0.8 else None

        await self._until(lambda: holder() is not None, min(stage.seconds * 0.15, 3.0))
        holds = holder()
        target = holds or next(member for member in stage.members if member.condition == "alive")
        whom = f"{target.name} (pid {target.pid}){f', which holds the lock {job_lock(jobs.SLOW)}' if holds else ''}"
        if verb == "freeze":
            target.freeze()
            stage.tell(f"SIGSTOP to {whom}", "bold bright_blue")
        else:
            self._killed.add(target.pid)
            target.end()
            target.condition = "killed"
            stage.tell(f"kill -9 {whom}", "bold red")
        stage.blows.append(Blow(verb, target, time.time(), holds is not None))
        return target

    async def _stop(self) -> None:
        stage, started = self._stage, time.monotonic()
        stage.tell("time is up: SIGTERM to all; what runs may end")
        for member in stage.members:
            member.process.terminate()
        await self._until(lambda: all(member.process.poll() is not None for member in stage.members), STOP_TIMEOUT)
        stage.shut_down_took = time.monotonic() - started
        for member in stage.members:
            code, member.condition = member.process.poll(), "stopped"
            if code != 0:
                how = "did not end by itself" if code is None else f"ended with code {code}"
                stage.left_behind.append(f"{member.name} {how}")
        self._read_effects()
        self.display.update()

    async def _alive(self, member: Member) -> None:
        """Wait until the store knows it."""
        deadline = time.monotonic() + START_TIMEOUT
        while not (owners := [each.owner for each in await instances(self._lb.store) if each.pid == member.pid]):
            if member.process.poll() is not None or time.monotonic() > deadline:
                raise Problem(f"instance {member.name} did not come up: {member.last_words()}")
            await asyncio.sleep(0.02)
        self._stage.letters[owners[0]] = member.name
        member.condition = "alive"

    # -- what is seen

    async def _watch(self) -> None:
        stage, looks = self._stage, 0
        while True:
            self._read_effects()
            stage.lock = next((lease for lease in await self._lb.locks.list() if lease.key == job_lock(jobs.SLOW)), None)
            if looks % 3 == 0:
                await self._read_ledger()
            for member in stage.members:
                running = member.condition in ("alive", "frozen") and stage.shut_down_took is None
                if running and member.process.poll() not in (None, 0):
                    raise Problem(f"instance {member.name} ended by itself: {member.last_words()}")
            self.display.update()
            looks += 1
            await asyncio.sleep(FRAME)

    def _read_effects(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._effects.open("rb") as file:
            file.seek(self._read_to)
            whole, end, _ = file.read().rpartition(b"\n")
            self._read_to += len(whole) + len(end)
            for effect in read_effects(whole.decode()):
                self._stage.effects.append(effect)
                self._note(effect)

    def _note(self, effect: Effect) -> None:
        stage = self._stage
        if effect.what == "begin":
            stage.begins.setdefault(effect.key, effect)
            for blow in stage.blows:
                if effect.job == jobs.SLOW and blow.held and blow.taken_over is None and effect.at > blow.at:
                    blow.taken_over = effect
                    after = f"{effect.at - blow.at:.1f} s after the {blow.verb}, fence {effect.fence}"
                    stage.tell(f"{effect.by} takes over {job_lock(jobs.SLOW)} {after}")
        elif effect.what == "cut":
            stage.cut.add(effect.key)
            stage.tell(f"{effect.by} finds its lease lost: its {effect.job} is cancelled", "bright_blue")

    async def _read_ledger(self, entries: int = LOOK_BACK) -> None:
        stage = self._stage
        pages = await asyncio.gather(*(self._lb.jobs.ledger(name, entries) for name in stage.job_names))
        for entry in (entry for page in pages for entry in reversed(page)):
            key = (entry.job, entry.slot_ms)
            before, stage.ledger[key] = stage.ledger.get(key), entry
            if entry.state == "lost" and (before is None or before.state != "lost") and stage.t0_ms:
                stage.tell(f"the ledger on {slot_name(key)}: lost, {entry.reason}", "red")

    def _is_settled(self) -> bool:
        """Whether all that was due has begun, or is known not to."""
        stage, now_ms = self._stage, time.time() * 1000
        return all(stage.cell(key, now_ms) != "waiting" for key in stage.due(stage.t1_ms))

    async def _judge(self) -> Verdict:
        stage = self._stage
        await self._read_ledger(100)
        self._read_effects()
        return judge(jobs.beat.declared, stage.due(stage.t1_ms), stage.effects, stage.ledger)

    async def _at(self, when: float) -> None:
        await asyncio.sleep(max(when - time.time(), 0))

    async def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait for what the watcher sees, for so long."""
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - processes and files ring no bell
            await asyncio.sleep(0.02)
