"""Where DESIGN.md says that something is decided, there it is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_files_and_functions_that_it_sends_readers_to_are_there() -> None:
    [section] = re.findall(r"^## Where to look$(.+?)^## ", (ROOT / "DESIGN.md").read_text(), re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| .+\? \| (.+) \|$", section, re.MULTILINE)
    assert len(rows) > 15
    for row in rows:
        text = ""
        for name in re.findall(r"`([^`]+)`", row):
            if "/" in name:
                text = (ROOT / ("lockbeat" if name.endswith(".py") else "scripts_lua") / name).read_text()
            else:
                assert re.search(rf"(?:function|def|class) {name}\b|^{name} = ", text, re.MULTILINE), (name, row)
