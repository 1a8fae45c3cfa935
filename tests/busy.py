"""Runs pytest on a busy machine: beside two busy loops, each of its processes stopped for up to half a second again and again.

`make busy` runs the suite so. No test may fail: none is decided by a margin of a fraction of a second.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

LONGEST_STOP = 0.5
LONGEST_RUN = 2.0
"""Seconds between two stops of a process."""


def children(pid: int) -> list[int]:
    """Empty once it has ended."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def stop_now_and_then(tests: subprocess.Popen[bytes], number: int) -> None:
    """Stop the process with this number among those of pytest-xdist, and let it go on."""
    while tests.poll() is None:
        time.sleep(random.uniform(0, LONGEST_RUN))
        if len(workers := children(tests.pid)) > number:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[number], signal.SIGSTOP)
                time.sleep(random.uniform(0, LONGEST_STOP))
                os.kill(workers[number], signal.SIGCONT)


def main() -> int:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        tests = subprocess.Popen([sys.executable, "-m", "pytest", *sys.argv[1:]])
        for number in range(8):
            threading.Thread(target=stop_now_and_then, args=(tests, number), daemon=True).start()
        return tests.wait()
    finally:
        for loop in loops:
            loop.kill()


if __name__ == "__main__":
    sys.exit(main())
