"""Who may see the page, and who may change what.

A change passes every gate or is refused: it is known who asks, the page is not read-only, the request comes from the page itself,
and `allow` lets that user do that to that job, task or queue.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import inspect
import ipaddress
import re
import secrets
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lockbeat.errors import InvalidArgument, LockbeatError
from lockbeat.values.names import check_by, check_name
from lockbeat.web.asked import Asked, Refused

User = Callable[[Mapping[str, Any]], str | Awaitable[str | None] | None]
"""Says of an ASGI scope who asks; None: nobody who may."""
Allow = Callable[[str, str, str], bool | Awaitable[bool]]
"""`allow(user, action, target)`: whether that user may do that (one of ACTIONS) to that job, task or queue."""

ACTIONS = (
    *("pause", "resume", "trigger", "skip_next"),
    *("backfill", "pause_backfill", "resume_backfill", "cancel_backfill"),
    *("retry", "cancel", "redrive", "purge"),
)
"""What the page can change; the first two lines name a job, and the last a task or a queue."""
COOKIE = "lockbeat_page"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
CHALLENGE = {"www-authenticate": 'Basic realm="lockbeat", charset="UTF-8"'}


@dataclass(frozen=True)
class Basic:
    """One user and a password, asked for by the browser."""

    user: str
    password: str

    def __post_init__(self) -> None:
        check_name("user", self.user, 200)
        if ":" in self.user:
            raise InvalidArgument("user", "must not hold a colon: basic authentication ends the name there")
        if not self.password:
            raise InvalidArgument("password", "must not be empty")
        if any(unicodedata.category(char) == "Cc" for char in self.password):
            raise InvalidArgument("password", "must not hold control characters, as no browser sends them")  # RFC 7617, 2

    def __repr__(self) -> str:
        return f"Basic({self.user!r}, ...)"

    def user_of(self, header: str) -> str | None:
        """Who the Authorization header proves to be; None: nobody."""
        kind, _, said = header.partition(" ")
        try:
            given = base64.b64decode(said.strip(), validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            given = b""
        # Both are compared as a whole, so that it takes as long to refuse a wrong user as a wrong password.
        digest = hashlib.sha256(given).digest()
        same = [hmac.compare_digest(digest, hashlib.sha256(right).digest()) for right in self._spelled()]
        return self.user if any(same) else None

    def _spelled(self) -> list[bytes]:
        """User and password as they may come: browsers send UTF-8, as they are asked to; requests and older tools Latin-1."""
        pair = f"{self.user}:{self.password}"
        # What is no UTF-8 came from the environment, and is compared byte by byte.
        spelled = [pair.encode("utf-8", "surrogateescape")]
        with contextlib.suppress(UnicodeEncodeError):
            spelled.append(pair.encode("latin-1"))
        return spelled


@dataclass(frozen=True)
class Guard:
    """What is asked of each request before anything is looked at."""

    user: User | None
    basic: Basic | None
    allow: Allow | None
    read_only: bool
    hosts: tuple[str, ...]
    """Names by which the page may be called; empty: any."""

    def check_host(self, asked: Asked) -> None:
        """A name that resolves to this machine is not enough: a page of somebody else's could have made it so (DNS rebinding)."""
        if self.hosts and host_of(asked.headers.get("host", "")) not in self.hosts:
            raise Refused(421, "this page is not served under that name: start it with --allow-host NAME")

    async def who(self, asked: Asked, scope: Mapping[str, Any]) -> str:
        """Who asks; empty: nobody says so. Raises Refused for one who may not see the page."""
        if self.basic is not None:
            if (found := self.basic.user_of(asked.headers.get("authorization", ""))) is None:
                raise Refused(401, "say who you are", CHALLENGE)
            return found
        if self.user is not None:
            said = self.user(scope)
            name = await said if inspect.isawaitable(said) else said
            if not name:
                raise Refused(401, "sign in first")
            return _checked(name)
        known = scope.get("user")  # as Starlette's AuthenticationMiddleware and FastAPI have it
        if known is not None and getattr(known, "is_authenticated", False) is True:
            return _checked(getattr(known, "display_name", "") or str(known))
        return ""

    async def check_change(self, asked: Asked, action: str, target: str) -> None:
        """Raises Refused unless this user may do this, now, from this page."""
        if not asked.user:
            raise Refused(401, "nobody says who you are, so nothing can be changed: give dashboard(lb, user=...)")
        if self.read_only:
            raise Refused(403, "this page is read-only")
        check_same_site(asked)
        if not hmac.compare_digest(asked.form.get("token", "").encode(), self.token(asked).encode()):
            raise Refused(403, "the form is not of this page, or too old: load the page again")
        if not await self.may(asked.user, action, target):
            raise Refused(403, f"{asked.user} may not {action.replace('_', ' ')} {target or 'that'}")

    async def may(self, user: str, action: str, target: str) -> bool:
        """Whether the buttons of an action are shown at all."""
        if self.read_only or not user:
            return False
        if self.allow is None:
            return True
        said = self.allow(user, action, target)
        return bool(await said if inspect.isawaitable(said) else said)

    @staticmethod
    def token(asked: Asked) -> str:
        """What a form of this browser and user has to carry. Empty is no token: `check_change` finds the cookie missing first."""
        if not (key := asked.cookie(COOKIE)):
            return secrets.token_hex(16)  # nobody's
        return hmac.new(key.encode(), f"lockbeat {asked.user}".encode(), hashlib.sha256).hexdigest()


def check_same_site(asked: Asked) -> None:
    """Raises Refused for what another site had the browser send."""
    site = asked.headers.get("sec-fetch-site")
    if site is not None:
        if site != "same-origin":
            raise Refused(403, "another site sent this")
        return
    origin = asked.headers.get("origin")  # where there is no TLS, browsers leave the other out
    if origin is not None and (origin == "null" or urlsplit(origin).netloc.lower() != asked.headers.get("host", "").lower()):
        raise Refused(403, "another site sent this, or a proxy changes the Host header: have it pass the one of the browser")


def named_host(argument: str, host: str) -> str:
    """A name or address as browsers send it in the Host header. Raises InvalidArgument for what no Host header holds."""
    text = host.strip().removesuffix(".").removeprefix("[").removesuffix("]").lower()
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    with contextlib.suppress(UnicodeError):
        text = text.encode("idna").decode()
    if not _NAME.fullmatch(text):
        raise InvalidArgument(argument, f"{host!r} must be a name or an address alone, without scheme, port or path")
    return text


def host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    text = header.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _checked(name: str) -> str:
    try:
        return check_by(check_name("user", name, 200))
    except LockbeatError:
        raise Refused(403, "who you are can't be written down: a name of 1 to 200 bytes is needed, not a blank one") from None
