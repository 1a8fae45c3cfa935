"""Celery: three beats of which one is killed every five seconds, the broker away for five, a real worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.celery.arena import arena
from tests.celery.storms import settled, storm
from tests.conftest import needs

SECONDS = float(os.environ.get("LOCKBEAT_CHAOS_CELERY_SECONDS", "60"))


@needs("valkey")
@pytest.mark.chaos
@pytest.mark.parametrize("apart", [True, False], ids=["a store of its own", "the store in the broker"])
async def test_each_slot_of_twenty_entries_is_run_once(tmp_path: Path, apart: bool) -> None:
    with arena(tmp_path, apart=apart) as field:
        first, last = await storm(field, entries=20, seconds=SECONDS, kill_every=5, away=5)
        verdict = await settled(field, 20, first, last)
    print(f"{verdict.slots} slots: {verdict.once} ran once, {verdict.told} stand in the ledger as not run")
    assert (verdict.lost, verdict.twice, verdict.unknown) == ([], {}, [])
    assert verdict.once + verdict.told == verdict.slots
    assert verdict.once >= verdict.slots * (0.99 if apart else 0.8)
