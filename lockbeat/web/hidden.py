"""What is not shown: passwords in URLs, and params whose names say that they are secret. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

HIDDEN = "***"
# Up to the last @: one may stand in a password.
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]{1,30}://)[^/\s'\"<>]{1,512}@", re.IGNORECASE)
_IN_QUERY = re.compile(
    r"(?<![a-z])((?:access_?|api_?|auth_?|client_?|private_?|secret_?|session_?)?(?:key|token|secret|password|passwd|signature|sig|pwd)=)"
    r"[^\s&'\"<>]{1,512}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,2048}", re.IGNORECASE)
_SECRET = re.compile(
    r"pass(word|wd|phrase)?$|^pw$|pwd|secret|token|credential|api_?key|private_?key|access_?key|authorization|cookie|session",
    re.IGNORECASE,
)
DEEPEST = 40


def without_secrets(text: str) -> str:
    """A text less what URLs, queries and headers in it keep secret."""
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    return _BEARER.sub(rf"\1 {HIDDEN}", _IN_QUERY.sub(rf"\1{HIDDEN}", text))


def shown_json(value: Any, most: int = 20_000) -> str:
    """A JSON value as people read it, less its secrets; what is longer is cut."""
    text = json.dumps(_shown(value, 0), indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= most else f"{text[:most]}\n... and {len(text) - most} characters more"


def _shown(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {name: HIDDEN if _SECRET.search(str(name)) else _shown(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_shown(one, depth + 1) for one in value]
    return without_secrets(value) if isinstance(value, str) else value
