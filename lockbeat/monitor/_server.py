"""The checks of one server."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from redis.exceptions import NoPermissionError, RedisError

from lockbeat.connection import Connector
from lockbeat.errors import StoreError, StoreUnavailable
from lockbeat.monitor._instances import fields
from lockbeat.store.keys import Keys
from lockbeat.store.replies import DENIED, NO_STORE
from lockbeat.store.scripts import load, names
from lockbeat.store.wire import Wire

T = TypeVar("T")

PINGS = 21
SLOW_MS = 20.0
"""A slot is fired in two round trips: beyond this they are what makes it late."""
OLDEST_REDIS = 7

State = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: a sentence, and what to do about it."""

    check: str
    state: State
    says: str
    remedy: str = ""


Said = tuple[State, str] | tuple[State, str, str]
"""A finding without the name of its check."""
NEWER = "use Valkey, or Redis 7.0 or newer"


async def told(asked: Awaitable[T]) -> T | StoreError:
    """What the server answers; or the error, where that is that it will not. Raises StoreUnavailable."""
    try:
        return await asked
    except StoreUnavailable:
        raise
    except StoreError as problem:
        return problem


async def checked(check: str, asked: Awaitable[Said]) -> Finding:
    """What a check found; where the server refuses what it asks, that is unknown."""
    said = await told(asked)
    return (
        Finding(check, "unknown", f"the server does not tell: {said}") if isinstance(said, StoreError) else Finding(check, *said)
    )


class Server:
    """One primary of the store."""

    def __init__(self, connector: Connector, keys: Keys, shard: int, wire: Wire) -> None:
        self.connector = connector
        self.info: dict[str, str] = {}
        """What INFO says; nothing where that is forbidden."""
        self._refusals: list[str] = []  # what scripts may not do here, whoever the user is
        self._keys = keys
        self._shard = shard
        self._wire = wire

    async def ask(self, *command: str | bytes) -> Any:
        """The reply, or the StoreError with which it is refused."""
        return await told(self._wire.command(*command))

    async def read_info(self) -> Self:
        reply = await self.ask("INFO")
        self.info = fields(reply) if isinstance(reply, bytes) else {}
        return self

    async def identify(self) -> list[Finding]:
        return [await checked("server", self._version()), await checked("role", self._role())]

    async def examine(self) -> AsyncIterator[Finding]:
        for finding in await self.identify():
            yield finding
        yield await checked("rights", self._rights())
        yield await checked("scripts", self._scripts())
        yield await checked("eviction", self._eviction())
        yield await checked("persistence", self._persistence())
        yield await checked("replication", self._replication())
        yield await checked("clock", self._clock())
        yield await checked("latency", self._latency())

    async def glance(self) -> list[Finding]:
        """What INFO, and three commands at most beside it, show to be worth a look."""
        checks = (("eviction", self._eviction()), ("persistence", self._persistence()), ("replication", self._replication()))
        found = [*await self.identify(), *[await checked(check, asked) for check, asked in checks]]
        return [finding for finding in found if finding.state in ("warn", "fail")]

    async def _setting(self, name: str) -> str | None:
        """A setting; None where the server does not tell it: managed ones forbid CONFIG."""
        reply = await self.ask("CONFIG", "GET", name)
        return reply[1].decode() if isinstance(reply, list) and len(reply) == 2 else None

    async def _version(self) -> Said:
        info = self.info
        if "valkey_version" in info:
            return "ok", f"Valkey {info['valkey_version']}"
        if (version := info.get("redis_version")) is None:
            return "unknown", "the server does not tell its version: INFO is forbidden"
        for kind in ("dragonfly", "kvrocks", "garnet"):
            if f"{kind}_version" in info:
                return "warn", f"{kind.capitalize()} {info[f'{kind}_version']} is not tested with", NEWER
        major = version.partition(".")[0]
        if major.isdigit() and int(major) < OLDEST_REDIS:
            return "warn", f"Redis {version} is older than any tested with", NEWER
        return "ok", f"Redis {version}"

    async def _role(self) -> Said:
        if self.info.get("role") == "slave":
            remedy = "name the primary, or its sentinels: redis+sentinel://HOST:PORT/SERVICE"
            return "fail", "a replica, which takes no writes", remedy
        if self.connector.kind != "cluster" and self.info.get("cluster_enabled") == "1":
            return "fail", "one node of a Cluster", "write the URL as redis+cluster://HOST:PORT"
        return ("ok", "primary") if "role" in self.info else ("unknown", "the server does not tell")

    async def _rights(self) -> Said:
        """Try each command on a key that does not exist, in a way that writes nothing."""
        prefix, bell = self._keys.key(self._shard, ""), self._keys.key(self._shard, "bell")
        whoami = await self.ask("ACL", "WHOAMI")
        user = whoami.decode() if isinstance(whoami, bytes) else self.connector.address.username or "default"
        # A count that is none: it gets past the check of rights, and no script is looked for.
        missing = self._lacking("evalsha", by_digest := await self.ask("EVALSHA", "0" * 40, "-1"))
        if refused(str(by_digest)):
            self._refusals.append(f"EVALSHA: {by_digest}")
        # With a key: some services run no script without.
        missing += self._lacking("eval", await self.ask("EVAL", "return 1", "1", f"{prefix}doctor"))
        may_eval = "eval" not in missing
        for channel in (bell, self._keys.channel("to:doctor")):
            missing += await self._subscribe(channel)
        if may_eval:
            missing += await self._may_in_script(prefix, bell)
        if not missing:
            return "ok", f"user {user} may run all that is needed on {prefix}* and its channels"
        rules = " ".join(word if word[0] in "~&" else f"+{word}" for word in dict.fromkeys(missing))
        return "fail", f"user {user} lacks {rules}", f"ACL SETUSER {user} {rules}"

    def _lacking(self, word: str, reply: object) -> list[str]:
        """What a command that was so answered lacks, as a rule of an ACL; nothing, if it failed otherwise or ran."""
        said = str(reply)
        if not denied(said):
            return []
        if "access" not in said:
            return [word]
        return [self._channels if "channel" in said else f"~{{{self._keys.namespace}:*"]

    async def _subscribe(self, channel: str) -> list[str]:
        """What lacks to listen to a channel. On a connection of its own: a subscribed one takes no other command."""
        try:
            link = await self.connector.dedicated_for_key(self._keys.key(self._shard, "fence"), timeout=self._wire.timeout)
            try:
                await link.send_command("SUBSCRIBE", channel, check_health=False)
                await link.read_response()
            finally:
                await link.disconnect(nowait=True)
        except NoPermissionError as problem:
            return [self._channels if "channel" in str(problem) else "subscribe"]
        except (RedisError, OSError) as problem:
            raise StoreUnavailable(str(problem)) from problem
        return []

    @property
    def _channels(self) -> str:
        return f"&{{{self._keys.namespace}*"

    async def _may_in_script(self, prefix: str, bell: str) -> list[str]:
        known = {"KEY": f"{prefix}doctor", "BELL": bell}
        trials = [[word, *(known.get(arg, arg) for arg in TRIALS[word].split())] for word in sorted(commands() & TRIALS.keys())]
        replies = await self.ask("EVAL", _TRY, "1", known["KEY"], json.dumps(trials))
        if isinstance(replies, StoreError):
            if not denied(replies):
                self._refusals.append(f"EVAL: {replies}")
            return self._lacking("eval", replies)
        missing = []
        for word, said in ((word.decode(), said.decode()) for word, said in replies):
            missing += self._lacking(word.lower(), said)
            if refused(said):
                self._refusals.append(f"{word}: {said}")
        return missing

    async def _scripts(self) -> Said:
        if self._refusals:
            more = f" (and {len(self._refusals) - 1} more)" if len(self._refusals) > 1 else ""
            remedy = "use a Valkey, or a Redis 7.0 or newer, that runs scripts as those do"
            return "fail", f"this store does not run our scripts: {self._refusals[0]}{more}", remedy
        wrong = []
        for name in names():
            script = load(name, bare=self.connector.kind == "memory")
            sha = await self.ask("SCRIPT", "LOAD", script.source)
            if isinstance(sha, StoreError):
                if denied(sha):
                    return "unknown", "SCRIPT LOAD is forbidden; it is not needed, since EVAL loads them"
                return "fail", f"{name} does not load: {sha}", NEWER
            if sha.decode() != script.sha:
                wrong.append(name)
        if wrong:
            return "fail", f"another digest than ours: {', '.join(wrong)}", "what is between us and the server?"
        return "ok", f"all {len(names())} load, with the digests that we call them by"

    async def _eviction(self) -> Said:
        policy = self.info.get("maxmemory_policy") or await self._setting("maxmemory-policy")
        if policy is None:
            return "unknown", "the server does not tell its maxmemory-policy", "make sure that it is noeviction"
        if policy != "noeviction":
            remedy = "CONFIG SET maxmemory-policy noeviction"
            return "warn", f"{policy} may evict a lease, which then has two owners", remedy
        used, most = _number(self.info, "used_memory"), _number(self.info, "maxmemory")
        if most and used > 0.9 * most:
            share = f"{100 * used // most} % of maxmemory is in use"
            return "warn", f"noeviction, but {share}: writes will be refused at 100 %", "raise maxmemory"
        return "ok", "noeviction: nothing is dropped to make room"

    async def _persistence(self) -> Said:
        remedy = "CONFIG SET appendonly yes; for good: `appendonly yes` in redis.conf (valkey.conf), or CONFIG REWRITE"
        aof, save = self.info.get("aof_enabled"), await self._setting("save")
        if aof == "1":
            sync = await self._setting("appendfsync")
            lost = {"always": "nothing that was answered", "everysec": "about the last second"}.get(sync or "", "the last writes")
            return "ok", f"append-only file: a crash loses {lost}"
        if aof is None and save is None:
            return "unknown", "the server does not tell whether it keeps its data", "have it keep an append-only file"
        if save:
            return "warn", f"snapshots only (save {save}): a crash forgets what came since, and slots may fire again", remedy
        if save is None:
            return "warn", "no append-only file: a crash forgets what came since the last snapshot", remedy
        return "warn", "none: a restart forgets the jobs' slots and the ledger", remedy

    async def _replication(self) -> Said:
        if "connected_slaves" not in self.info:
            return "unknown", "the server does not tell its replicas"
        if not (replicas := _number(self.info, "connected_slaves")):
            return (
                "ok",
                "no replicas: slots that come due while this server is away are left to their jobs' catchup",
            )
        least = await self._setting("min-replicas-to-write")
        several = f"{replicas} replica{'s' * (replicas != 1)}"
        lost = "a failover can lose the last writes (fences grow all the same)"
        if least == "0":
            remedy = "CONFIG SET min-replicas-to-write 1, with min-replicas-max-lag, bounds the loss"
            return "warn", f"{several}, asynchronous: {lost}", remedy
        bound = "" if least is None else f"; it takes writes only with {least} of them in reach"
        return "ok", f"{several}, asynchronous: {lost}{bound}"

    async def _clock(self) -> Said:
        best, offset = float("inf"), 0.0
        for _ in range(7):
            before, began = time.time(), time.monotonic()
            seconds, micros = await self._wire.command("TIME")
            took = time.monotonic() - began
            if took < best:
                best, offset = took, before + took / 2 - int(seconds) - int(micros) / 1e6
        if abs(offset) <= best / 2 + 0.001:
            return "ok", "this machine's clock agrees with the server's, as far as can be told"
        by = f"{abs(offset) * 1000:.0f} ms" if abs(offset) < 10 else f"{abs(offset):.0f} s"
        way = "ahead of" if offset > 0 else "behind"
        return "ok", f"this machine is {by} {way} the server: harmless, the server's clock decides"

    async def _latency(self) -> Said:
        times = []
        for _ in range(PINGS):
            began = time.monotonic()
            await self._wire.command("PING")
            times.append(time.monotonic() - began)
        median = statistics.median(times) * 1000
        said = f"a round trip takes {median:.2f} ms (median of {PINGS})"
        if median > SLOW_MS:
            return "warn", f"{said}, which is what slots come late by", "run the instances nearer to the store"
        return "ok", said


TRIALS = {
    word: args
    for args, words in {
        "": "TIME",
        "KEY": "DEL EXISTS GET HGETALL HKEYS HLEN HRANDFIELD HVALS LLEN LPOP PERSIST "
        "PTTL RPOP SCARD SMEMBERS STRLEN TTL TYPE UNLINK ZCARD ZPOPMIN",
        "BELL doctor": "PUBLISH",
        "KEY 0": "HSCAN ZSCAN",
        "KEY 1": "EXPIRE PEXPIRE PEXPIREAT",
        "KEY field": "HDEL HEXISTS HGET HMGET",
        "KEY member": "SISMEMBER SREM ZMSCORE ZRANK ZREM ZSCORE",
        "KEY + -": "ZREVRANGEBYLEX",
        "KEY - +": "ZLEXCOUNT ZRANGEBYLEX ZREMRANGEBYLEX",
        "KEY 0 0": "LRANGE ZCOUNT ZRANGE ZRANGEBYSCORE ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE",
        "KEY 0 member": "LREM",
        "KEY field none": "HINCRBY",
        "KEY value XX": "SET",
        "KEY XX 0 member": "ZADD",
        "KEY field value odd": "HSET",
    }.items()
    for word in words.split()
}
"""What scripts may call, with arguments that get past the check of rights and then write nothing, as KEY does not exist."""

_TRY = """
local out = {}
for i, words in ipairs(cjson.decode(ARGV[1])) do
  local reply = redis.pcall(unpack(words))
  out[i] = {words[1], type(reply) == 'table' and reply.err or ''}
end
return out
"""

_CALL = re.compile(r"redis\.p?call\('([A-Z]+)'")


def commands() -> set[str]:
    """The commands that our scripts call."""
    return {word for name in names() for word in _CALL.findall(load(name).source)}


def denied(problem: object) -> bool:
    text = str(problem)
    return text.startswith("NOPERM") or any(words in text for words in DENIED)


def refused(said: str) -> bool:
    """Whether a server says that a command is not for scripts, or not there: no right can be given that would help."""
    return any(words in said for words in NO_STORE) or ("nknown" in said and "command" in said)


def _number(info: dict[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdigit() else 0
