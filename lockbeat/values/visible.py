"""The one place that makes text of somebody else's safe to show.

Names, owners, reasons, results and the words of exceptions are anybody's. On a terminal a control character moves the cursor,
clears the screen, sets the title or writes what was never said; a bidirectional one shows a name as another.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories that are escaped: C0, DEL and C1; bidirectional and other invisible characters; lone surrogates; line ends."""


def visible(text: str, keep: str = "") -> str:
    """The text with each character of those categories spelled out, as Python would (`\\x1b`); but those in `keep`."""
    plain = text
    for char in keep:
        plain = plain.replace(char, "")
    if plain.isprintable():  # a look at each character by itself takes a second for a megabyte
        return text
    return "".join(_spelled(char) if char not in keep and _is_unseen(char) else char for char in text)


def visible_json(document: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON that is the same document, and safe: what `visible` escapes is escaped here as JSON has it."""
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    # json itself escapes C0. Line ends that are left are its own, between the values.
    return "".join(json.dumps(char)[1:-1] if char != "\n" and _is_unseen(char) else char for char in text) if _odd(text) else text


def first_line(text: str | None) -> str:
    """Of what somebody said; empty: nothing."""
    return next(iter((text or "").strip().splitlines()), "")


def _odd(text: str) -> bool:
    return not text.replace("\n", "").isprintable()


def _is_unseen(char: str) -> bool:
    return not char.isprintable() and unicodedata.category(char) in UNSEEN


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode()
