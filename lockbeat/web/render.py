"""Words and numbers as HTML. Whatever comes from the store is escaped, and control characters are spelled out."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import Response

from lockbeat.jobs import LedgerEntry
from lockbeat.jobs.remarks import remark as remarked
from lockbeat.jobs.why import became, state_of, took
from lockbeat.monitor import Mark
from lockbeat.triggers.zones import clocks_of
from lockbeat.values.durations import brief, instant, span
from lockbeat.values.visible import visible
from lockbeat.web.asked import Asked
from lockbeat.web.hidden import shown_json, without_secrets

HERE = Path(__file__).parent
TOKEN = f"token-{secrets.token_hex(16)}"
"""Stands in a page where its reader's token belongs: what is shared between readers has none."""
ONCE = f"once-{secrets.token_hex(16)}"
"""Likewise, where each page that is sent has a number of its own."""
ONCE_FIELD = "once"
NOTHING = re.compile(r'(<td\b[^>]*)>(\s*(?:-|<span class="none">-</span>)\s*</td>)')
"""A cell of a table without a value: a phone leaves it out."""
_AT = f"at-{secrets.token_hex(8)}:"
"""Stands before an instant in a sentence, which becomes a <time>."""
KINDS = {
    **dict.fromkeys(("done", "ok", "alive"), "good"),
    **dict.fromkeys(("running", "retrying", "waiting", "fired", "claimed", "in_line"), "busy"),
    **dict.fromkeys(("failed", "lost", "dead", "fail", "expired", "silent", "stuck", "overdue", "hanging"), "bad"),
    **dict.fromkeys(("missed", "warn", "paused"), "warn"),
    **dict.fromkeys(("skipped", "cancelled", "anchored", "unknown", "retired", "ended"), "mute"),
}
"""By a state, which colour it has."""
HEIGHTS = {"good": 10, "busy": 14, "bad": 20, "warn": 20, "mute": 5}
"""Of its bar, too: colours alone are not for everybody."""


def finalize(value: Any) -> Any:
    """What a template puts in: no control or bidirectional character of anybody's is shown.

    The hidden fields of forms are escaped (`|e`) but not spelled out: what they name has to come back as it is.
    """
    if value is None:
        return ""
    return visible(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def at(when: float | datetime | None, zone: str = "") -> Markup:
    """An instant (seconds since the Unix epoch) in UTC, for the script to put into the reader's zone."""
    if when is None:
        return Markup('<span class="none">-</span>')
    moment = instant(round(when * 1000)) if not isinstance(when, datetime) else when
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    clocks = clocks_of(zone) if zone not in ("", "UTC") else None
    own = "" if clocks is None else f"{moment.astimezone(clocks):%Y-%m-%d %H:%M:%S} {zone}"
    title = f"{text} UTC" + (f"\n{own}" if own else "")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(timespec="milliseconds"), title, f"{text} UTC"
    )


def clock(when: float) -> str:
    """How `why` spells an instant: `told` makes a <time> of it."""
    return f"{_AT}{round(when * 1000)};"


def told(text: str) -> Markup:
    """A sentence with its instants as <time>, and less its secrets."""
    parts = re.split(rf"{re.escape(_AT)}(-?\d+);", text)
    done = [at(int(part) / 1000) if odd % 2 else escape(visible(without_secrets(part))) for odd, part in enumerate(parts)]
    return Markup("").join(done)


def said(text: str) -> Markup:
    """What was done, with its instants as <time>."""
    parts = re.split(r"(\d{4}-\d\d-\d\dT[\d:.]+\+00:00)", text)
    done = [at(datetime.fromisoformat(part)) if odd % 2 else escape(visible(part)) for odd, part in enumerate(parts)]
    return Markup("").join(done)


def ago(when: float | None, now: float) -> str:
    """How far off an instant is."""
    if when is None:
        return "-"
    return f"in {span(when - now)}" if when > now else f"{span(now - when)} ago"


def kind(state: str) -> str:
    return KINDS.get(state, "mute")


def pill(state: str, text: str = "") -> Markup:
    """A state in its colour."""
    return Markup('<span class="pill {}">{}</span>').format(kind(state), visible(text or state.replace("_", " ")))


def strip(marks: Sequence[Mark], most: int = 60, links: str = "", picked: int = -1) -> Markup:
    """The latest slots of a job, the newest at the right. `links`: the URL of a slot without its number."""
    shown, counts = list(marks[:most])[::-1], dict[str, int]()
    bars = []
    for place, mark in enumerate(shown):
        counts[mark.state] = counts.get(mark.state, 0) + 1
        height, x = HEIGHTS[kind(mark.state)], (most - len(shown) + place) * 5
        title = f"{instant(mark.slot_ms):%Y-%m-%d %H:%M:%S} UTC: {mark.state}"
        css = f"{kind(mark.state)}{' picked' if mark.slot_ms == picked else ''}"
        bar = Markup('<rect class="{}" x="{}" y="{}" width="4" height="{}" rx="1"><title>{}</title></rect>')
        done = bar.format(css, x, 20 - height, height, title)
        link = Markup('<a href="{}" aria-label="{}" tabindex="-1">{}</a>')
        bars.append(link.format(f"{links}{mark.slot_ms}", title, done) if links else done)
    said = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no slot yet"
    return Markup('<svg class="strip" viewBox="0 0 {} 20" role="{}" aria-label="{}">{}</svg>').format(
        most * 5 - 1, "group" if links else "img", f"the latest {len(shown)} slots: {said}", Markup("").join(bars)
    )


def columns(
    counts: Iterable[tuple[float, str, str]], *, base: Sequence[float] = (), height: int = 60, label: str = "", width: int = 6
) -> Markup:
    """A column for each of (how many, title, kind), as high as it is large against the largest; `base` of them is steady."""
    found = list(counts)
    top = max([1, *(many for many, _, _ in found)])
    bars = []
    for place, (many, title, css) in enumerate(found):
        tall = 0 if not many else max(round(many / top * height), 2)
        bar = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
        bars.append(bar.format(css, place * width, height - max(tall, 1), width - 1, max(tall, 1), title))
        if base and (low := round(base[place] / top * height)):
            bars.append(bar.format("mute", place * width, height - low, width - 1, low, title))
    return Markup(
        '<svg class="columns" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(max(len(found) * width - 1, 1), height, label, Markup("").join(bars))


def remark(entry: LedgerEntry) -> Markup:
    """Why it is so, in a line."""
    return told(remarked(entry, clock, 300))


def rate(a_second: float) -> str:
    """As many digits as say something; of what happens seldom, how seldom."""
    if not a_second:
        return "0"
    if a_second < 0.1:
        return f"1 in {span(round(1 / a_second))}"
    return f"{a_second:,.0f}" if a_second >= 100 else f"{a_second:.3g}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "at": at,
        "ago": ago,
        "pill": pill,
        "kind": kind,
        "told": told,
        "said": said,
        "span": span,
        "brief": brief,
        "plural": plural,
        "rate": rate,
    }
    made.filters |= {
        "state_of": state_of,
        "took": took,
        "became": became,
        "remark": remark,
        "bare": without_secrets,
        "as_json": shown_json,
    }
    made.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    made.filters["quoted"] = lambda text: quote(text, safe="")
    made.tests["frail"] = lambda text: re.search(r"[\x00-\x1f]", text) is not None
    made.globals |= {
        "strip": strip,
        "columns": columns,
        "TOKEN": TOKEN,
        "ONCE": ONCE,
        "ONCE_FIELD": ONCE_FIELD,
        "css": ASSETS["/page.css"].name,
        "js": ASSETS["/page.js"].name,
    }
    return made


def addressed(text: str, token: str) -> str:
    """A page as one reader gets it."""
    return text.replace(TOKEN, token).replace(ONCE, secrets.token_hex(8))


def render(template: str, words: Mapping[str, Any], block: str = "") -> str:
    """A whole page; or one block of it."""
    found = _environment().get_template(template)
    text = "".join(found.blocks[block](found.new_context(dict(words)))) if block else found.render(words)
    return NOTHING.sub(r"\1 data-none>\2", text)


@dataclass(frozen=True)
class Asset:
    """A file of ours, asked for by a name that changes with it."""

    name: str
    kind: str
    content: bytes

    @classmethod
    def of(cls, file: str, kind: str) -> Asset:
        content = (HERE / "static" / file).read_bytes()
        return cls(f"{file}?v={hashlib.sha256(content).hexdigest()[:12]}", kind, content)

    def answer(self, asked: Asked) -> Response:
        headers = {
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "private, max-age=31536000, immutable" if asked.raw_query else "no-cache",
        }
        return Response(self.content, 200, headers, self.kind)


ASSETS = {
    "/page.css": Asset.of("page.css", "text/css; charset=utf-8"),
    "/page.js": Asset.of("page.js", "text/javascript; charset=utf-8"),
    "/page.svg": Asset.of("page.svg", "image/svg+xml"),
}
