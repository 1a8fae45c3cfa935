"""Links to where the logs of a run are, from a template: `https://logs.example/?q={task_id}&from={started_ms}`. Pure."""

from __future__ import annotations

from string import Formatter
from typing import Any
from urllib.parse import quote, urlsplit

from lockbeat.errors import InvalidArgument

FIELDS = ("task_id", "job", "slot", "slot_ms", "attempt", "fence", "owner", "started_ms", "ended_ms")
"""What a template may name. Times are in ms since the Unix epoch, `slot` is in ISO 8601; what is not known is empty."""


def check_link(argument: str, template: str | None) -> str | None:
    """Raises InvalidArgument for what can't be a template."""
    if template is None:
        return None
    try:
        split = urlsplit(template)
        named = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None]
    except (ValueError, TypeError, AttributeError) as problem:
        raise InvalidArgument(argument, f"can't be read: {problem}") from None
    if split.scheme not in ("http", "https") or not split.netloc or "{" in split.netloc:
        raise InvalidArgument(argument, f"must be a URL that begins with https://HOST, not {template!r}")
    for name, spec, conversion in named:
        if name not in FIELDS or spec or conversion:
            raise InvalidArgument(argument, f"names {{{name}}}; there are {', '.join(FIELDS)}")
    return template


def link(template: str, **fields: Any) -> str:
    """The link for a run. Every field is quoted, so none can change where it leads."""
    said = {name: "" if (value := fields.get(name)) is None else quote(str(value), safe="") for name in FIELDS}
    return template.format_map(said)
