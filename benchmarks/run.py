"""Measures lockbeat side by side with its peers: `python benchmarks/run.py [SUITE ...] [--quick]`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

SUITES = (
    "locks",
    "blocking",
    "waiting",
    "renew",
    "fire",
    "lateness",
    "idle",
    "control",
    "registry",
    "scale",
    "sizing",
    "tasks",
    "celery",
    "signals",
    "web",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", nargs="*", default=["all"], choices=[*SUITES, "all", "report"], metavar="SUITE")
    parser.add_argument("--quick", action="store_true", help="short rounds: to see that it works, not to quote")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON and the pictures go")
    options = parser.parse_args()
    # `report` measures nothing.
    chosen = SUITES if "all" in options.suite else tuple(name for name in SUITES if name in options.suite)

    from harness import Bench, surroundings

    command = " ".join(["python benchmarks/run.py", *options.suite, *(["--quick"] if options.quick else [])])
    bench = Bench(options.quick, command)
    options.results.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        started = time.monotonic()
        before = surroundings(bench)
        result = importlib.import_module(f"suites.{name}").run(bench)
        took = {"took_s": round(time.monotonic() - started, 1)}
        text = json.dumps({"suite": name, **before, **took, **result}, indent=1, sort_keys=False)
        (options.results / f"{name}.json").write_text(text + "\n")
        bench.log(f"{name}: {took['took_s']} s")

    import report

    report.write(options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
