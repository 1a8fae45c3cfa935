"""What must be so of a job's tasks after each call, whatever was called before, and what overlap makes of a slot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lockbeat import Lockbeat
from lockbeat.store.records import LeaseLine, TaskRecord

OVERLAPS = ("skip", "allow", "buffer_one", "buffer_all", "cancel_other")
UNFINISHED = ("waiting", "running", "stopping")


def is_guarded(record: TaskRecord) -> bool:
    """Whether its attempts take the job's lock."""
    return record.policies.get("overlap") != "allow"


def stays(task_id: str, record: TaskRecord) -> bool:
    """Whether it gives way to no slot: it was begun before, or somebody wants it to run."""
    return bool(record.made or record.retried or record.backfill or "!" in task_id)


@dataclass(frozen=True)
class Look:
    """How the job's tasks stand, as the store has it."""

    now_ms: int
    records: dict[str, TaskRecord]
    leader: str | None
    line: list[str]
    queued: set[str]
    holder: str | None
    """The task whose attempt has the job's lock; empty: somebody else has it."""

    def of(self, *states: str) -> list[str]:
        """Its tasks of these states that take the lock."""
        return [task for task, record in self.records.items() if record.state in states and is_guarded(record)]

    @property
    def own(self) -> list[str]:
        """Slots in line that a later one may take the place of."""
        return [task for task in self.line if not stays(task, self.records[task])]


class Watch:
    """Looks at one job of a store of one shard, or of the shard that the job is in."""

    def __init__(self, lb: Lockbeat, raw: Any, job: str) -> None:
        self.lb, self.raw, self.job = lb, raw, job
        self.shard = lb.jobs.shard_of(job)
        self.counts: Counter[str] = Counter()
        self.last: dict[str, TaskRecord] = {}
        self.orphans: set[str] = set()
        """What was left of a job that was deleted: no ledger has it."""

    def key(self, name: str) -> Any:
        return self.lb.store.keys.key(self.shard, name)

    def look(self, now_ms: int) -> Look:
        found: dict[bytes, bytes] = self.raw.hgetall(self.key("task"))
        mine = (f"{self.job}@".encode(), f"{self.job}!".encode())
        records = {task.decode(): TaskRecord.of(text) for task, text in found.items() if task.startswith(mine)}
        text: bytes | None = self.raw.hget(self.key("job:open"), self.job)
        leader, *line = (text or b"").decode("latin-1").split("\xff")
        words = [word if word[0] == "!" else word.rstrip("b") for word in line]
        queued = {
            member.split(b"\xff", 1)[1][33:].decode()
            for name in ("task:ready", "task:delayed")
            for member in self.raw.zrange(self.key(name), 0, -1)
        }
        for word, marked in zip(words, line, strict=True):
            task = self.named(word)
            assert word[0] == "!" or (word != marked) == stays(task, records[task]), "the line says who gives way"
        lease: bytes | None = self.raw.hget(self.key("lock"), f"job:{self.job}")
        holder = None
        if lease is not None and (self.raw.zscore(self.key("lock:live"), f"job:{self.job}") or 0) > now_ms:
            note = LeaseLine.of(lease).note
            holder = self.named(note) if note else ""
        return Look(now_ms, records, leader or None, [self.named(word) for word in words], queued & set(records), holder)

    def named(self, word: str) -> str:
        return self.job + (word if word[0] == "!" else f"@{word}")

    def forget(self, now_ms: int) -> None:
        """The job was deleted."""
        self.counts.clear()
        self.last = self.look(now_ms).records
        self.orphans.update(self.last)

    def check(self, now_ms: int, *, split: bool = False) -> Look:
        """What is so after every call. split: entries of several slots may have been parted."""
        at = self.look(now_ms)
        at_work, waiting = at.of("running", "stopping"), at.of("waiting")
        assert len(at_work) <= 1, "what runs runs alone"
        assert len(at.line) == len(set(at.line))
        assert at.leader not in at.line
        assert not at.line or at.leader
        assert all(at.records[task].state == "waiting" for task in at.line)
        assert set(waiting) <= at.queued | set(at.line), "what waits stands in a queue or in line, or nobody would ever begin it"
        assert not at.queued & set(at.line)
        assert at.queued <= {task for task, record in at.records.items() if record.state == "waiting"}
        assert at.own == sorted(at.own, key=lambda task: int(task.rpartition("@")[2])), "the oldest first"
        if at.leader is not None:
            assert at.records[at.leader].state in UNFINISHED, "it leads, and has not ended"
        assert not at_work or at.leader == at_work[0], "what runs leads"
        assert not at.holder or at.leader == at.holder
        astray = [task for task in waiting if task in at.queued and task != at.leader]
        assert all(at.records[task].retried for task in astray), "what is in a queue leads, unless it is tried again"
        self._count(at, split)
        return at

    def _count(self, at: Look, split: bool) -> None:
        for task, record in at.records.items():
            old = self.last.get(task)
            if "!" in task or task in self.orphans or (old and old.state == record.state):
                continue
            fell = record.state in ("skipped", "missed")
            if record.state != "anchored" and (
                (old is None and not (fell and record.max_attempts == 0)) or (old and old.state in ("skipped", "missed"))
            ):
                self.counts["fired"] += 1
            if fell:
                self.counts[record.state] += max(record.policies.get("count", 1), 1) if old is None else 1
            elif record.state == "dead":
                self.counts["lost" if record.made[-1].how == "lost" else "failed"] += 1
            elif record.state in ("stopping", "cancelled") and not (old and old.state == "stopping"):
                self.counts["cancelled"] += 1
            elif record.state == "done":
                self.counts["done"] += 1
        gone = {task: record for task, record in self.last.items() if task not in at.records and "!" not in task}
        if not split:
            assert gone.keys() <= self.orphans, "no slot vanishes"
        self.orphans -= gone.keys()
        self.last = at.records
        text = self.raw.hget(self.key("job:counts"), self.job) or b"0 0 0 0 0 0 0"
        words = ("fired", "done", "failed", "lost", "skipped", "missed", "cancelled")
        counted = dict(zip(words, map(int, text.split()), strict=True))
        if split:
            self.counts.update({word: counted[word] - self.counts[word] for word in ("skipped", "missed")})
        assert counted == {word: self.counts[word] for word in words}, "counts and ledger tell the same"


def check_fired(before: Look, after: Look, overlap: str, buffer: int) -> None:
    """What becomes of a slot that has come due, under catch-up latest, by what it met."""
    kept = [task for task in before.of("waiting") if stays(task, before.records[task]) and task != before.leader]
    assert {after.records[task].state for task in kept} <= {"waiting"}, "it gives way to no slot"
    came = [task for task, record in after.records.items() if task not in before.records and "count" not in record.policies]
    if overlap == "allow" or before.holder == "" or not came:
        return
    slot = max(came, key=lambda task: int(task.rpartition("@")[2]))
    said, in_line = after.records[slot], slot in after.line
    # What its lease no longer holds was taken back before.
    runs = before.holder if before.holder and before.records[before.holder].state == "running" else None
    stops = before.holder if before.holder and not runs else None
    if before.of("running", "stopping") and not before.holder:
        return
    leader = before.leader if not (runs or stops) else None
    fresh = leader is not None and not stays(leader, before.records[leader])
    meets = runs or stops or (None if fresh else leader)
    full = len(before.own) >= buffer
    if meets is None:
        if fresh and overlap == "buffer_all":
            assert (said.code == "buffer_full") if full else in_line
            return
        assert said.state == "running" or slot == after.leader or in_line
        assert leader is None or (after.records[leader].state, after.records[leader].code) == ("missed", "not_begun")
        return
    if overlap == "skip" and not stops and not before.records[meets].backfill:
        assert (said.state, said.code, said.detail) == ("skipped", "overlap", meets)
        return
    if overlap == "buffer_all" and full:
        assert said.code == "buffer_full"
        return
    if overlap == "cancel_other" and meets == leader:
        assert after.records[meets].state == "cancelled"
        assert after.records[meets].code in ("overtaken", "job_deleted")
        assert said.state == "running" or slot == after.leader or in_line
        return
    assert in_line, f"{slot} waits for {meets}"
    if overlap == "cancel_other" and runs:
        assert after.records[runs].state == "stopping", "the run that goes on ends"
        assert after.records[runs].code in ("overtaken", "job_deleted")
    elif runs:
        assert after.records[runs].state == "running"
    if overlap != "buffer_all":
        assert {(after.records[task].state, after.records[task].code) for task in before.own} <= {("skipped", "overtaken")}
