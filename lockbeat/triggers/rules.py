"""By which version of the time zones' rules this process reckons."""

from __future__ import annotations

import re
import zoneinfo
from functools import cache
from pathlib import Path

UNKNOWN = "-"


@cache
def rules_version() -> str:
    """The IANA version of the tzdata that `zoneinfo` reads, such as 2025b; "-": it does not say.

    Versions order as text. The system's files go before the package `tzdata`, as they do for `zoneinfo`.
    """
    for directory in map(Path, zoneinfo.TZPATH):
        for name in ("tzdata.zi", "+VERSION", "version"):
            try:
                with (directory / name).open(encoding="ascii", errors="replace") as lines:
                    found = re.search(r"\b(20\d\d[a-z]{1,2})\b", lines.readline())
            except OSError:
                continue
            if found:
                return found[1]
        if (directory / "UTC").exists():
            return UNKNOWN
    try:
        import tzdata  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return UNKNOWN
    return str(tzdata.IANA_VERSION)
