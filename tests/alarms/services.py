"""Local servers that speak the APIs of Sentry Crons, healthchecks.io and Cronitor, as their public documentation has them, and a
receiver of webhooks. What is not of these APIs is refused, and remembered as a complaint.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SENTRY_KEY, PING_KEY, API_KEY, CRONITOR_KEY = "a" * 32, "ping-key-of-the-project", "hc-api-key", "cronitor-key"
ID = re.compile(r"[0-9a-f]{32}")
SLUG = re.compile(r"[a-z0-9_-]{1,50}")


@dataclass
class Services:
    """What they were told."""

    port: int = 0
    sentry: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    """Monitor -> check-in -> its statuses in order."""
    pings: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    cronitor: dict[str, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    monitors: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Of each service and slug, how it is configured."""
    hooks: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    """Status codes to answer with first."""
    hang: threading.Event = field(default_factory=threading.Event)
    """Set: answer. Cleared by a test: nobody is answered until it is set again."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dsn(self) -> str:
        return f"http://{SENTRY_KEY}@127.0.0.1:{self.port}/42"

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
        """The status code."""
        url, query = urlsplit(path), {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        parts = url.path.strip("/").split("/")
        try:
            if url.path == "/api/42/envelope/" and method == "POST":
                return self._envelope(headers, body)
            if url.path == "/api/v3/checks/" and method == "POST":
                assert headers["x-api-key"] == API_KEY
                check = json.loads(body)
                assert check["unique"] == ["slug"]
                assert ("schedule" in check and "tz" in check) != ("timeout" in check)
                assert 60 <= check["grace"] <= 31_536_000
                self.monitors["healthchecks", check["slug"]] = check
                return 201
            if url.path == "/api/monitors" and method == "PUT":
                assert headers["authorization"] == "Basic " + base64.b64encode(f"{CRONITOR_KEY}:".encode()).decode()
                for monitor in json.loads(body)["monitors"]:
                    assert monitor["type"] == "job"
                    self.monitors["cronitor", monitor["key"]] = monitor
                return 200
            if parts[0] == "p":
                assert parts[1] == CRONITOR_KEY
                assert query["state"] in ("run", "complete", "fail", "ok")
                self.cronitor[self._slug(parts[2])][query["series"]].append(query["state"])
                return 200
            if parts[0] == PING_KEY:
                kind = {1: "success", 2: parts[-1]}[len(parts) - 1]
                assert kind in ("success", "start", "fail", "log")
                assert query.keys() <= {"rid", "create"}
                slug = self._slug(parts[1])
                assert query.get("create") == "1" or ("healthchecks", slug) in self.monitors, "404"
                self.pings[slug][query["rid"].replace("-", "")].append(kind)
                if body:
                    self.messages.append(body.decode())
                return 200
            if parts[0] == "hook":
                self.hooks.append((headers, body))
                return 204
        except (AssertionError, KeyError, IndexError, ValueError) as problem:
            self.complaints.append(f"{method} {path}: {problem!r} {body!r}")
            return 400
        self.complaints.append(f"{method} {path}")
        return 404

    def _envelope(self, headers: dict[str, str], body: bytes) -> int:
        assert f"sentry_key={SENTRY_KEY}" in headers["x-sentry-auth"]
        assert "sentry_version=7" in headers["x-sentry-auth"]
        assert headers["content-type"] == "application/x-sentry-envelope"
        head, item, payload = map(json.loads, body.decode().split("\n"))
        assert "sent_at" in head
        assert item["type"] == "check_in"
        assert ID.fullmatch(payload["check_in_id"])
        assert payload["status"] in ("in_progress", "ok", "error")
        config = payload["monitor_config"]
        when = config["schedule"]
        if when["type"] == "interval":
            assert when["unit"] in ("year", "month", "week", "day", "hour", "minute")
            assert int(when["value"]) >= 1
        else:
            assert when["type"] == "crontab"
            assert len(when["value"].split()) == 5
        slug = self._slug(payload["monitor_slug"])
        self.monitors["sentry", slug] = config
        self.sentry[slug][payload["check_in_id"]].append(payload["status"])
        return 200

    def _slug(self, text: str) -> str:
        assert SLUG.fullmatch(text), text
        return text


@contextlib.contextmanager
def services() -> Iterator[Services]:
    told = Services()
    told.hang.set()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:
                return  # who sent it is dead
            told.hang.wait()
            with lock:
                if told.refuse:
                    code = told.refuse.pop(0)
                else:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    code = told.answer(self.command, self.path, headers, body)
            with contextlib.suppress(ConnectionError):  # who asked has given up
                self.send_response(code)
                self.send_header("Content-Length", "0" if code == 204 else "2")
                self.end_headers()
                if code != 204:
                    self.wfile.write(b"OK")

        do_GET = do_POST = do_PUT = _any  # noqa: N815 - http.server's names

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # who asked has died: what we refuse is in `complaints`

    with Server(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield told
        finally:
            told.hang.set()
            server.shutdown()
            thread.join()
