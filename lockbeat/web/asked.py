"""What is asked: one request, read within bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from lockbeat.errors import InvalidArgument

LONGEST_QUERY = 4096
LARGEST_BODY = 65_536
MOST_FIELDS = 40
MOST_HEADERS = 100
PREFIX = re.compile(r"(?:/[A-Za-z0-9_~.-]+)+")


class Refused(Exception):
    """The request is not answered with what it asked for."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, dict(headers or {})


def check_prefix(prefix: str, pages: frozenset[str]) -> str:
    """A path under which a proxy serves the page, as it begins the path of every link; empty: none.

    It is believed as it is configured: no header of a request says another.
    """
    found = prefix.rstrip("/")
    if found and (not PREFIX.fullmatch(found) or ".." in found.split("/") or "." in found.split("/")):
        raise InvalidArgument("prefix", f"{prefix!r} must be a path such as /lockbeat, of letters, digits and any of _ ~ . -")
    if found in pages:
        raise InvalidArgument("prefix", f"{prefix!r} is a page of its own: take another")
    return found


@dataclass
class Asked:
    """A request, as far as pages and actions need it."""

    method: str
    path: str
    """Below where the page is mounted; `/` is the first page."""
    base: str
    """What the path of every link begins with."""
    query: dict[str, str]
    raw_query: str
    headers: Mapping[str, str]
    secure: bool
    form: dict[str, str] = field(default_factory=dict)
    user: str = ""
    """Who asks; empty: nobody knows."""

    @classmethod
    def of(cls, scope: Mapping[str, Any], prefix: str) -> Asked:
        """Raises Refused."""
        raw = scope.get("query_string", b"")
        if len(raw) > LONGEST_QUERY:
            raise Refused(414, f"the query is longer than {LONGEST_QUERY} bytes")
        if len(scope["headers"]) > MOST_HEADERS:
            raise Refused(431, "too many headers")
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            text = name.decode("latin-1").lower()
            if text in ("host", "sec-fetch-site", "origin", "authorization") and text in headers:
                raise Refused(400, f"the header {text} comes twice")
            headers[text] = value.decode("latin-1")
        root, path = str(scope.get("root_path") or "").rstrip("/"), str(scope["path"])
        for above in (root, prefix):  # servers and proxies differ in whether they take it off
            if above and (path == above or path.startswith(above + "/")):
                path = path[len(above) :]
        base = re.sub("/{2,}", "/", quote(root + prefix, safe="/-._~"))
        if base and not base.startswith("/"):
            base = "/" + base
        return cls(
            method=str(scope["method"]).upper(),
            path=path or "/",
            base=base,
            query=pairs(raw.decode("latin-1")),
            raw_query=raw.decode("latin-1"),
            headers=headers,
            secure=scope.get("scheme") == "https",
        )

    def cookie(self, name: str) -> str:
        """The first cookie of that name; empty: there is none."""
        for part in self.headers.get("cookie", "")[:8192].split(";"):
            found, _, value = part.strip().partition("=")
            if found == name:
                return value
        return ""

    def url(self, page: str, /, **query: object) -> str:
        """The path of a page of ours. What is None or empty is left out."""
        said = {name.rstrip("_"): str(value) for name, value in query.items() if value not in (None, "", False)}
        return f"{self.base}/{page}{'?' + urlencode(said) if said else ''}"

    def again(self, /, **query: object) -> str:
        """The path of this page with other words in its query."""
        return self.url(self.path.lstrip("/"), **{**self.query, **query})


def pairs(text: str) -> dict[str, str]:
    """A query or a form as names and values; of a name that comes twice the last. Raises Refused.

    What a hidden field holds that a browser would change is quoted once more: see `hidden` in _parts.html.
    """
    try:
        said = dict(parse_qsl(text, keep_blank_values=False, max_num_fields=MOST_FIELDS, errors="strict"))
        quoted = {name: unquote(value, errors="strict") for name, value in said.items() if name.endswith("_quoted")}
        return said | {name.removesuffix("_quoted"): value for name, value in quoted.items()}
    except ValueError:  # UnicodeDecodeError, too
        raise Refused(400, "the query or form can't be read") from None


async def form_of(asked: Asked, receive: Any) -> dict[str, str]:
    """The form of a POST. Raises Refused."""
    kind = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, "a form is expected")
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the form did not come whole")
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise Refused(413, f"a form of more than {LARGEST_BODY} bytes")
        if not message.get("more_body"):
            return pairs(body.decode("latin-1"))
