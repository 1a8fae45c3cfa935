"""The dashboard: an ASGI application over one store. Whatever is asked of it costs the store a bounded number of commands."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote, unquote

import anyio
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lockbeat.client import Lockbeat
from lockbeat.errors import InvalidArgument, LockbeatError, StoreError, StoreUnavailable, UnknownJob, UnknownTask
from lockbeat.values.checks import of_type
from lockbeat.web import actions, pages
from lockbeat.web.asked import Asked, Refused, check_prefix, form_of
from lockbeat.web.guard import COOKIE, Allow, Basic, Guard, User, named_host
from lockbeat.web.look import Look, Page
from lockbeat.web.rates import Looks
from lockbeat.web.render import ASSETS, addressed, render
from lockbeat.web.repeats import Repeats
from lockbeat.web.stream import Streams

log = logging.getLogger("lockbeat")  # which escapes what is foreign in a line

PATIENCE = 15.0
"""Seconds that a page may take; the store's own timeout is shorter."""
AT_A_TIME = 32
"""Pages and changes that are being answered; more are told to come again."""
SAID = "lockbeat_said"
"""The cookie that carries what a change has done to the page that is shown next."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def dashboard(
    lb: Lockbeat,
    *,
    user: User | None = None,
    allow: Allow | None = None,
    read_only: bool = False,
    basic: Basic | None = None,
    hosts: tuple[str, ...] = (),
    prefix: str = "",
    show_params: bool = False,
    title: str = "",
) -> Dashboard:
    """An ASGI application that shows a store: `Mount("/lockbeat", dashboard(lb))`.

    lb: open while it is served; what serves it alone may leave that to it, it opens a closed one with its lifespan.
    user: asked of each request, by its ASGI scope, who asks; None as the answer refuses the page. Without it the page can be seen
        by whoever the application lets through, and only whom AuthenticationMiddleware has signed in can change anything.
    allow: `allow(user, action, target) -> bool`, see ACTIONS; it may be a coroutine function. None: who is known may do all.
    read_only: nobody may change anything.
    basic: ask for this user and password by basic authentication, in the place of `user`.
    hosts: the names by which it may be called, without ports; empty: any.
    prefix: the path that a proxy in front adds, such as /lockbeat. Where it is mounted it finds by itself.
    show_params: show params and results of tasks, less what looks like a secret. They are not sent otherwise.
    title: a word beside the namespace, such as "staging".

    Raises: InvalidArgument, InvalidType. MissingExtra on import, without the extra `web`.
    """
    of_type("lb", lb, Lockbeat, "a Lockbeat")
    if user is not None and basic is not None:
        raise InvalidArgument("basic", "is in the place of user: give one of them")
    guard = Guard(user, basic, allow, read_only, tuple(named_host("hosts", host) for host in hosts))
    return Dashboard(lb, guard, check_prefix(prefix, pages.PATHS), show_params, title)


class Dashboard:
    """See `dashboard`."""

    def __init__(self, lb: Lockbeat, guard: Guard, prefix: str, show_params: bool, title: str) -> None:
        self.lb = lb
        self.guard = guard
        self.prefix = prefix
        self._show_params = show_params
        self._title = title
        self._answering = 0
        self.streams = Streams()
        self._looks = Looks()
        self._pressed = Repeats[actions.Done]()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        response: Any
        try:
            response = await self._guarded(scope, receive)
        except Refused as refused:
            response = await self._problem(scope, refused.status, refused.why, refused.headers)
        except Exception:
            log.exception("the web page has failed")
            response = Response("this page has failed: the log says why", 500, HEADERS, "text/plain")
        await response(scope, receive, send)

    async def _guarded(self, scope: Mapping[str, Any], receive: Any) -> Any:
        asked = Asked.of(scope, self.prefix)
        self.guard.check_host(asked)
        if asset := ASSETS.get(asked.path):
            return asset.answer(asked)
        if asked.method not in ("GET", "HEAD", "POST"):
            raise Refused(405, "only GET and POST are understood", {"allow": "GET, HEAD, POST"})
        if asked.path not in (actions.PATHS if asked.method == "POST" else pages.PATHS):
            raise Refused(404, "there is no such page")
        asked.user = await self.guard.who(asked, scope)
        if not self.lb.is_open:
            raise Refused(503, "the store is not open: serve the page inside of `async with lb`")
        if self._answering >= AT_A_TIME:
            raise Refused(503, "too much is asked at once", {"retry-after": "1"})
        self._answering += 1
        try:
            with anyio.fail_after(PATIENCE):
                return await (self._change(asked, receive) if asked.method == "POST" else self._show(asked))
        except (UnknownJob, UnknownTask) as problem:
            raise Refused(404, str(problem)) from problem
        except InvalidArgument as problem:
            raise Refused(400, str(problem)) from problem
        except (TimeoutError, StoreUnavailable) as problem:
            raise Refused(503, f"the store does not answer: {problem}".rstrip(": ")) from problem
        except StoreError as problem:
            raise Refused(502, f"the store refuses: {problem}") from problem
        except LockbeatError as problem:
            raise Refused(409, str(problem)) from problem
        finally:
            self._answering -= 1

    async def _show(self, asked: Asked) -> Any:
        look = self._look(asked)
        live = "text/event-stream" in asked.headers.get("accept", "")
        if live:
            return self.streams.answer(asked, lambda: self._live(look), self.guard.token(asked), HEADERS)
        fresh = not asked.cookie(COOKIE)
        key = asked.cookie(COOKIE) or secrets.token_urlsafe(24)
        about, _, told = unquote(asked.cookie(SAID))[:600].partition(" ")
        said = told if about == self._which(asked) else ""
        if fresh:
            asked.headers = {**asked.headers, "cookie": f"{asked.headers.get('cookie', '')}; {COOKIE}={key}".lstrip("; ")}
        page = await pages.PAGES[asked.path](look)
        text = addressed(self._rendered(look, page, said=said), self.guard.token(asked))
        response = HTMLResponse(text, headers=HEADERS)
        where: dict[str, Any] = {"path": asked.base or "/", "httponly": True, "samesite": "lax", "secure": asked.secure}
        if fresh:
            response.set_cookie(COOKIE, key, **where)
        if said:
            response.delete_cookie(SAID, **where)
        return response

    async def _live(self, look: Look) -> str:
        """What of a page changes, as it is now."""
        with anyio.fail_after(PATIENCE):
            page = await pages.PAGES[look.asked.path](look)
        return self._rendered(look, page, block="live")

    def _rendered(self, look: Look, page: Page, *, said: str = "", block: str = "") -> str:
        return render(page.template, {**self._about(look.asked), **page.words, "look": look, "said": said}, block)

    def _about(self, asked: Asked) -> dict[str, Any]:
        return {
            "asked": asked,
            "said": "",
            "url": asked.url,
            "nav": pages.NAV,
            "namespace": self.lb.namespace,
            "title": self._title,
            "read_only": self.guard.read_only,
            "unknown_user": not asked.user,
        }

    async def _change(self, asked: Asked, receive: Any) -> Response:
        # Refused before the body is read: whoever may change nothing sends nothing.
        if not asked.user or self.guard.read_only:
            await self.guard.check_change(asked, "", "")
        asked.form = await form_of(asked, receive)
        action = actions.PATHS[asked.path]
        target = asked.form.get(action.names, "")
        await self.guard.check_change(asked, action.name, target)
        for name, field in action.also:
            await self.guard.check_change(asked, name, asked.form.get(field, ""))
        look = self._look(asked)
        done = await self._pressed.once(asked, lambda: self._do(action, look, target))
        response = RedirectResponse(done.where, 303, HEADERS)
        response.set_cookie(
            SAID,
            quote(f"{self._which(asked)} {done.said[:200]}"),
            max_age=60,
            path=asked.base or "/",
            httponly=True,
            samesite="lax",
            secure=asked.secure,
        )
        return response

    async def _do(self, action: actions.Action, look: Look, target: str) -> actions.Done:
        done = await action.do(look, look.asked.form)
        log.info("%s: %s %r by %s", look.asked.path, action.name, target, look.asked.user)
        return done

    def _which(self, asked: Asked) -> str:
        """Tells this page from others that are served at the same host: browsers send cookies to each of its ports."""
        return hashlib.blake2b(f"{asked.headers.get('host', '')} {self.lb.namespace}".encode(), digest_size=6).hexdigest()

    def _look(self, asked: Asked) -> Look:
        return Look(self.lb, asked, self.guard, self._show_params, self._looks)

    async def _problem(self, scope: Mapping[str, Any], status: int, why: str, headers: Mapping[str, str]) -> Response:
        try:
            asked = Asked.of({**scope, "query_string": b"", "headers": []}, self.prefix)
        except Refused:
            return Response(why, status, {**HEADERS, **headers}, "text/plain")
        known = status not in (401, 421)  # strangers are told nothing of what is here
        words = {
            **self._about(asked),
            "status": status,
            "why": why,
            "known": known,
            "unknown_user": False,
            "nav": pages.NAV if known else (),
        }
        return HTMLResponse(render("problem.html", words), status, {**HEADERS, **headers})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        """Served alone, it opens the store; and ends what streams when the server goes down."""
        async with AsyncExitStack() as stack:
            await receive()
            if not self.lb.is_open:
                try:
                    await stack.enter_async_context(self.lb)
                except LockbeatError as problem:
                    await send({"type": "lifespan.startup.failed", "message": str(problem)})
                    return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.streams.end()
        await send({"type": "lifespan.shutdown.complete"})
