"""As in a container: PID 1 of a namespace of its own, on a file system that can't be written to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, only

ROOT = Path(__file__).parents[2]
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
READ_ONLY = "mount --bind -o remount,ro / && exec "


def is_possible() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*APART, "sh", "-c", READ_ONLY + "true"], capture_output=True, check=False, timeout=30)
    return tried.returncode == 0


@pytest.mark.skipif(not is_possible(), reason="needs the right to make namespaces")
@only("valkey")
def test_it_hears_sigterm_as_pid_1_and_writes_no_file(url: str, namespace: str, tmp_path: Path) -> None:
    """Linux gives PID 1 no signal that it has no handler for, and nobody but itself reaps for it."""
    command = f"{sys.executable} -m lockbeat run jobs:beat"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*APART, "sh", "-c", READ_ONLY + command],
            cwd=ROOT / "deploy" / "app",
            env=os.environ
            | {
                "LOCKBEAT_URL": url,
                "LOCKBEAT_NAMESPACE": namespace,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONUNBUFFERED": "1",
            },
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 2 * PATIENCE
        while "serving" not in (said := (tmp_path / "log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        [inside] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert Path(f"/proc/{inside}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        os.kill(int(inside), signal.SIGTERM)
        assert process.wait(2 * PATIENCE) == 0, (tmp_path / "log").read_text()
        assert "shut down" in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
