"""The checks of one server."""

from __future__ import annotations

import json
import re
import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal

from redis.exceptions import NoPermissionError, RedisError

from lockbeat.connection import Connector
from lockbeat.errors import StoreError, StoreUnavailable
from lockbeat.monitor._instances import fields
from lockbeat.store.keys import Keys
from lockbeat.store.replies import NO_STORE
from lockbeat.store.scripts import load, names
from lockbeat.store.wire import Wire

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


class Server:
    """One primary of the store."""

    def __init__(self, connector: Connector, keys: Keys, shard: int, wire: Wire) -> None:
        self.connector = connector
        self.info: dict[str, str] = {}
        self._refusals: list[str] = []  # what scripts may not do here, whoever the user is
        self._keys = keys
        self._shard = shard
        self._wire = wire

    async def ask(self, *command: str | bytes) -> Any:
        return await self._wire.command(*command)

    async def read_info(self) -> dict[str, str]:
        """What INFO says; nothing where that is forbidden."""
        try:
            return fields(await self.ask("INFO"))
        except StoreUnavailable:
            raise
        except StoreError:
            return {}

    async def examine(self) -> list[Finding]:
        return [
            self.version(),
            self.role(),
            await self._rights(),
            await self._scripts(),
            await self._eviction(),
            await self._persistence(),
            await self._replication(),
            await self._clock(),
            await self._latency(),
        ]

    async def _setting(self, name: str) -> str | None:
        """A setting; None where the server does not tell it: managed ones forbid CONFIG."""
        try:
            reply = await self.ask("CONFIG", "GET", name)
        except StoreUnavailable:
            raise
        except StoreError:
            return None
        return reply[1].decode() if len(reply) == 2 else None

    def version(self) -> Finding:
        info, check = self.info, "server"
        if "valkey_version" in info:
            return Finding(check, "ok", f"Valkey {info['valkey_version']}")
        version = info.get("redis_version")
        if version is None:
            return Finding(check, "unknown", "the server does not tell its version: INFO is forbidden")
        for kind in ("dragonfly_version", "kvrocks_version", "garnet_version"):
            if kind in info:
                name = kind.removesuffix("_version").capitalize()
                return Finding(check, "warn", f"{name} {info[kind]} is not tested with", "use Valkey, or Redis 7.0 or newer")
        major = version.partition(".")[0]
        if major.isdigit() and int(major) < OLDEST_REDIS:
            return Finding(check, "warn", f"Redis {version} is older than any tested with", "use Valkey, or Redis 7.0 or newer")
        return Finding(check, "ok", f"Redis {version}")

    def role(self) -> Finding:
        if self.info.get("role") == "slave":
            remedy = "name the primary, or its sentinels: redis+sentinel://HOST:PORT/SERVICE"
            return Finding("role", "fail", "a replica, which takes no writes", remedy)
        if self.connector.kind != "cluster" and self.info.get("cluster_enabled") == "1":
            return Finding("role", "fail", "one node of a Cluster", "write the URL as redis+cluster://HOST:PORT")
        return Finding(
            "role", "ok" if "role" in self.info else "unknown", "primary" if "role" in self.info else "the server does not tell"
        )

    async def _rights(self) -> Finding:
        """Try each command on a key that does not exist, in a way that writes nothing."""
        prefix, user = self._keys.key(self._shard, ""), await self._user()
        bell = self._keys.key(self._shard, "bell")
        missing = []
        # A count that is none: it gets past the check of rights, and no script is looked for.
        missing += await self._lacks("evalsha", "0" * 40, "-1")
        # With a key: some services run no script without.
        missing += await self._lacks("eval", "return 1", "1", f"{prefix}doctor")
        for channel in (bell, self._keys.channel("to:doctor")):
            missing += [word for word in await self._subscribe(channel) if word not in missing]
        if "eval" not in missing:
            missing += [word for word in await self._may_in_script(prefix, bell) if word not in missing]
        if not missing:
            return Finding("rights", "ok", f"user {user} may run all that is needed on {prefix}* and its channels")
        rules = [word if word[0] in "~&" else f"+{word}" for word in missing]
        return Finding("rights", "fail", f"user {user} lacks {' '.join(rules)}", f"ACL SETUSER {user} {' '.join(rules)}")

    async def _user(self) -> str:
        try:
            return str((await self.ask("ACL", "WHOAMI")).decode())
        except StoreUnavailable:
            raise
        except StoreError:
            return self.connector.address.username or "default"

    async def _lacks(self, *command: str) -> list[str]:
        """What a command lacks, as a rule of an ACL; nothing, if it failed otherwise or ran."""
        try:
            await self.ask(*command)
        except StoreUnavailable:
            raise
        except StoreError as problem:
            return self._lacking(command[0], str(problem))
        return []

    def _lacking(self, word: str, said: str) -> list[str]:
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
        probe = f"{prefix}doctor"
        known = {"KEY": probe, "BELL": bell}
        trials = [[word, *(known.get(arg, arg) for arg in TRIALS[word].split())] for word in sorted(commands() & TRIALS.keys())]
        try:
            replies = await self.ask("EVAL", _TRY, "1", probe, json.dumps(trials))
        except StoreUnavailable:
            raise
        except StoreError as problem:
            if not denied(problem):
                self._refusals.append(f"EVAL: {problem}")
            return self._lacking("eval", str(problem))
        missing = []
        for word, said in ((word.decode(), said.decode()) for word, said in replies):
            missing += self._lacking(word.lower(), said)
            if refused(said):
                self._refusals.append(f"{word}: {said}")
        return list(dict.fromkeys(missing))

    async def _scripts(self) -> Finding:
        if self._refusals:
            more = f" (and {len(self._refusals) - 1} more)" if len(self._refusals) > 1 else ""
            remedy = "use a Valkey, or a Redis 7.0 or newer, that runs scripts as those do"
            return Finding("scripts", "fail", f"this store does not run our scripts: {self._refusals[0]}{more}", remedy)
        wrong = []
        for name in names():
            script = load(name, bare=self.connector.kind == "memory")
            try:
                sha = (await self.ask("SCRIPT", "LOAD", script.source)).decode()
            except StoreUnavailable:
                raise
            except StoreError as problem:
                if denied(problem):
                    return Finding("scripts", "unknown", "SCRIPT LOAD is forbidden; it is not needed, since EVAL loads them")
                return Finding("scripts", "fail", f"{name} does not load: {problem}", "use Valkey, or Redis 7.0 or newer")
            if sha != script.sha:
                wrong.append(name)
        if wrong:
            return Finding(
                "scripts", "fail", f"another digest than ours: {', '.join(wrong)}", "what is between us and the server?"
            )
        return Finding("scripts", "ok", f"all {len(names())} load, with the digests that we call them by")

    async def _eviction(self) -> Finding:
        check = "eviction"
        policy = self.info.get("maxmemory_policy") or await self._setting("maxmemory-policy")
        if policy is None:
            return Finding(check, "unknown", "the server does not tell its maxmemory-policy", "make sure that it is noeviction")
        if policy != "noeviction":
            return Finding(
                check, "warn", f"{policy} may evict a lease, which then has two owners", "CONFIG SET maxmemory-policy noeviction"
            )
        used, most = _number(self.info, "used_memory"), _number(self.info, "maxmemory")
        if most and used > 0.9 * most:
            share = f"{100 * used // most} % of maxmemory is in use"
            return Finding(check, "warn", f"noeviction, but {share}: writes will be refused at 100 %", "raise maxmemory")
        return Finding(check, "ok", "noeviction: nothing is dropped to make room")

    async def _persistence(self) -> Finding:
        check = "persistence"
        remedy = "CONFIG SET appendonly yes; for good: `appendonly yes` in redis.conf (valkey.conf), or CONFIG REWRITE"
        aof, save = self.info.get("aof_enabled"), await self._setting("save")
        if aof == "1":
            sync = await self._setting("appendfsync")
            lost = {"always": "nothing that was answered", "everysec": "about the last second"}.get(sync or "", "the last writes")
            return Finding(check, "ok", f"append-only file: a crash loses {lost}")
        if aof is None and save is None:
            return Finding(
                check, "unknown", "the server does not tell whether it keeps its data", "have it keep an append-only file"
            )
        if save:
            return Finding(
                check, "warn", f"snapshots only (save {save}): a crash forgets what came since, and slots may fire again", remedy
            )
        if save is None:
            return Finding(check, "warn", "no append-only file: a crash forgets what came since the last snapshot", remedy)
        return Finding(check, "warn", "none: a restart forgets the jobs' slots and the ledger", remedy)

    async def _replication(self) -> Finding:
        check = "replication"
        if "connected_slaves" not in self.info:
            return Finding(check, "unknown", "the server does not tell its replicas")
        replicas = _number(self.info, "connected_slaves")
        if not replicas:
            return Finding(
                check, "ok", "no replicas: while this server is away nothing fires, and then the catch-up policy applies"
            )
        least = await self._setting("min-replicas-to-write")
        several = f"{replicas} replica{'s' * (replicas != 1)}"
        lost = "a failover can lose the last writes (fences grow all the same)"
        if least == "0":
            remedy = "CONFIG SET min-replicas-to-write 1, with min-replicas-max-lag, bounds the loss"
            return Finding(check, "warn", f"{several}, asynchronous: {lost}", remedy)
        bound = "" if least is None else f"; it takes writes only with {least} of them in reach"
        return Finding(check, "ok", f"{several}, asynchronous: {lost}{bound}")

    async def _clock(self) -> Finding:
        best, offset = float("inf"), 0.0
        try:
            for _ in range(7):
                before, began = time.time(), time.monotonic()
                seconds, micros = await self.ask("TIME")
                took = time.monotonic() - began
                if took < best:
                    best, offset = took, before + took / 2 - int(seconds) - int(micros) / 1e6
        except StoreUnavailable:
            raise
        except StoreError as problem:
            return Finding("clock", "unknown", f"the server does not tell the time: {problem}")
        if abs(offset) <= best / 2 + 0.001:
            return Finding("clock", "ok", "this machine's clock agrees with the server's, as far as can be told")
        by = f"{abs(offset) * 1000:.0f} ms" if abs(offset) < 10 else f"{abs(offset):.0f} s"
        way = "ahead of" if offset > 0 else "behind"
        return Finding("clock", "ok", f"this machine is {by} {way} the server: harmless, the server's clock decides")

    async def _latency(self) -> Finding:
        times = []
        try:
            for _ in range(PINGS):
                began = time.monotonic()
                await self.ask("PING")
                times.append(time.monotonic() - began)
        except StoreUnavailable:
            raise
        except StoreError as problem:
            return Finding("latency", "unknown", f"PING is forbidden: {problem}")
        median = statistics.median(times) * 1000
        said = f"a round trip takes {median:.2f} ms (median of {PINGS})"
        if median > SLOW_MS:
            return Finding(
                "latency", "warn", f"{said}, which is what slots come late by", "run the instances nearer to the store"
            )
        return Finding("latency", "ok", said)


TRIALS = {
    "DEL": "KEY",
    "EXISTS": "KEY",
    "EXPIRE": "KEY 1",
    "GET": "KEY",
    "HDEL": "KEY field",
    "HEXISTS": "KEY field",
    "HGET": "KEY field",
    "HGETALL": "KEY",
    "HINCRBY": "KEY field none",
    "HKEYS": "KEY",
    "HLEN": "KEY",
    "HMGET": "KEY field",
    "HRANDFIELD": "KEY",
    "HSCAN": "KEY 0",
    "HSET": "KEY field value odd",
    "HVALS": "KEY",
    "LLEN": "KEY",
    "LPOP": "KEY",
    "LRANGE": "KEY 0 0",
    "LREM": "KEY 0 member",
    "PERSIST": "KEY",
    "PEXPIRE": "KEY 1",
    "PEXPIREAT": "KEY 1",
    "PTTL": "KEY",
    "PUBLISH": "BELL doctor",
    "RPOP": "KEY",
    "SCARD": "KEY",
    "SET": "KEY value XX",
    "SISMEMBER": "KEY member",
    "SMEMBERS": "KEY",
    "SREM": "KEY member",
    "STRLEN": "KEY",
    "TIME": "",
    "TTL": "KEY",
    "TYPE": "KEY",
    "UNLINK": "KEY",
    "ZADD": "KEY XX 0 member",
    "ZCARD": "KEY",
    "ZCOUNT": "KEY 0 0",
    "ZLEXCOUNT": "KEY - +",
    "ZMSCORE": "KEY member",
    "ZPOPMIN": "KEY",
    "ZRANGE": "KEY 0 0",
    "ZRANGEBYLEX": "KEY - +",
    "ZRANGEBYSCORE": "KEY 0 0",
    "ZRANK": "KEY member",
    "ZREM": "KEY member",
    "ZREMRANGEBYLEX": "KEY - +",
    "ZREMRANGEBYRANK": "KEY 0 0",
    "ZREMRANGEBYSCORE": "KEY 0 0",
    "ZREVRANGE": "KEY 0 0",
    "ZREVRANGEBYLEX": "KEY + -",
    "ZREVRANGEBYSCORE": "KEY 0 0",
    "ZSCAN": "KEY 0",
    "ZSCORE": "KEY member",
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
    # To a script Redis 7.0 says it in other words than Valkey.
    return text.startswith("NOPERM") or "ACL failure in script" in text or "user executing the script can't" in text


def refused(said: str) -> bool:
    """Whether a server says that a command is not for scripts, or not there: no right can be given that would help."""
    return any(words in said for words in NO_STORE) or ("nknown" in said and "command" in said)


def _number(info: dict[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdigit() else 0
