"""What the tests of scripts share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockbeat.store.batch import Target
from lockbeat.store.wire import Wire


@pytest.fixture
def arity(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Has every call checked against its script's header; the names of the scripts that were called."""
    seen: set[str] = set()
    submit = Wire.submit

    def checked(self: Wire, target: Target, args: Any, **options: Any) -> asyncio.Future[Any]:
        assert len(args) == len(target.script.argv), target.script.name
        assert len(target.head) == 3 + len(target.script.keys)
        seen.add(target.script.name)
        return submit(self, target, args, **options)

    monkeypatch.setattr(Wire, "submit", checked)
    return seen
