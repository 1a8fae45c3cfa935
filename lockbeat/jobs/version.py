"""The version of a program: all the jobs that its code declares, as a digest. The store says which of two is the newer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from lockbeat.errors import InvalidArgument, InvalidType
from lockbeat.jobs.definition import Job
from lockbeat.store import Store

_NUMBER = re.compile(r"\d{1,15}(\.\d{1,15}){0,7}", re.ASCII)
_ID = re.compile(r"[0-9a-f]+")
NONE = "-"


class Version(NamedTuple):
    """What a program's code declares, as a whole."""

    id: str
    """A digest of its jobs and its number."""
    number: str
    """As `Beat(version=)` says it; "-": it does not."""

    @property
    def name(self) -> str:
        """For people: its number, or the digest."""
        return self.id if self.number == NONE else self.number

    def said(self, first_ms: int, before: Iterable[str] = ()) -> str:
        """As `beat/heartbeat` takes it. first_ms: when it was first declared, as the store has said; 0: it has not.

        before: the versions of which it has jobs, as any shard has said.
        """
        return f"{self.id} {first_ms} {self.number} {','.join(before)}"


def check_version(value: object) -> str:
    """A version as programs number theirs: an int, or up to eight numbers with dots between; None: "-".

    Raises: InvalidArgument, InvalidType.
    """
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise InvalidType("version", f"must be an int or a str such as '2030.1.31', not {type(value).__name__}")
    if not _NUMBER.fullmatch(str(value)):
        raise InvalidArgument("version", f"{value!r} can't be compared: it must be numbers, such as 41 or '2030.1.31'")
    return str(value)


def version_of(jobs: Iterable[Job], number: str = NONE) -> Version | None:
    """The version of a program that declares these jobs; None: it declares none."""
    lines = sorted(f"{job.name}\xff{job.rev}" for job in jobs)
    if not lines:
        return None
    return Version(hashlib.blake2b("\n".join([number, *lines]).encode(), digest_size=6).hexdigest(), number)


class KnownVersion(NamedTuple):
    """A version that instances have declared, as the store knows it."""

    id: str
    number: str
    until_ms: int
    """As far as is known, an instance that declares it lives so long."""
    retires_ms: int
    """When jobs that only it declares retire, if a living version has others of its jobs by then."""
    after: frozenset[str]
    """The versions that have taken over jobs of it."""
    is_newer: bool
    """Than the one that was asked about."""


async def known_versions(store: Store, than: Version | None) -> dict[str, KnownVersion]:
    """The versions that the store knows, by id (`beat/versions`). It forgets them a day after their last instance."""
    said, found = than.said(0) if than else "", dict[str, KnownVersion]()
    for reply in await store.on_every_shard(lambda shard: store.call("beat/versions", shard, version=said)):
        for id_, number, until_ms, retires_ms, after, newer in reply.versions:
            behind = frozenset(_ID.findall(after.decode()))
            known = KnownVersion(id_.decode(), number.decode(), until_ms, retires_ms, behind, bool(newer))
            other = found.get(known.id, known)
            latest = max(other, known, key=lambda each: each.until_ms)
            found[known.id] = latest._replace(after=known.after | other.after)
    return found
