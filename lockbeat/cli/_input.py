"""What commands read: files and stdin."""

from __future__ import annotations

import sys
from pathlib import Path


def text_of(file: str) -> str:
    """What a file holds, or stdin for `-`; less the mark that editors on Windows put first. Raises OSError, UnicodeError."""
    if file == "-":
        return sys.stdin.read().removeprefix("\ufeff")
    return Path(file).read_text(encoding="utf-8-sig")
