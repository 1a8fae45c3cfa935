"""What the alert rules say to what was scraped: as promtool, Prometheus' own tool, works it out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "lockbeat.rules.yml"
KEPT = 10
"""Minutes for which each scrape says the same, before the next says something else."""

Series = dict[str, float]


def promtool(*args: str) -> str:
    """Run it; what it says. AssertionError with that, if it is not content."""
    found = shutil.which("promtool")
    assert found is not None
    done = subprocess.run([found, *args], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[str]:
    """The names of all that there are."""
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def _series(text: bytes, instance: str, honor_labels: bool) -> Series:
    """What Prometheus makes of a scrape: labels of its own beside ours. Only what the rules read."""
    wanted = set(re.findall(r"lockbeat_\w+", RULES.read_text()))
    found: Series = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name not in wanted:
                continue
            labels = dict(sample.labels)
            if not honor_labels and "job" in labels:
                labels["exported_job"] = labels.pop("job")
            labels = {"instance": instance, "job": "lockbeat"} | labels
            inner = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(labels.items()))
            found[f"{sample.name}{{{inner}}}"] = sample.value
    return found


def firing(
    folder: Path,
    scrapes: Sequence[bytes],
    expected: Iterable[str],
    *,
    instance: str = "a:9100",
    honor_labels: bool = True,
    summaries: dict[str, str] | None = None,
) -> None:
    """Assert that these alerts fire, and no others, after these scrapes came one after the other, each for KEPT minutes.

    Before the last of them came, none fires. summaries: of an alert what it says, word for word.
    """
    seen = [_series(text, instance, honor_labels) for text in scrapes]
    names = sorted({name for series in seen for name in series})
    rows = []
    for name in names:
        values = [[str(series[name]) if name in series else "stale"] * (KEPT + 1) for series in seen]
        rows.append({"series": name, "values": " ".join(value for kept in values for value in kept)})
    last = (KEPT + 1) * len(seen) - 1

    def said(minute: int, which: Iterable[str]) -> dict[str, object]:
        samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(which)]
        expr = 'group by (alertname) (ALERTS{alertstate="firing"})'
        return {"expr": expr, "eval_time": f"{minute}m", "exp_samples": samples}

    test: dict[str, object] = {"interval": "1m", "input_series": rows, "promql_expr_test": [said(last, expected)]}
    if len(seen) > 1:
        test["promql_expr_test"] = [said(last - KEPT - 1, ()), said(last, expected)]
    page: dict[str, Any] = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    path = folder / "stories.test.yml"
    path.write_text(json.dumps(page))
    promtool("test", "rules", str(path))
    for name, summary in (summaries or {}).items():
        found = _summaries(folder, page, name, last)
        assert summary in found, found


def _summaries(folder: Path, page: dict[str, Any], name: str, minute: int) -> str:
    """What an alert says. promtool tells only what it is not: it is asked for one that says nothing."""
    [test] = page["tests"]
    asked = {key: value for key, value in test.items() if key != "promql_expr_test"}
    asked["alert_rule_test"] = [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": [{"exp_labels": {"none": "none"}}]}]
    path = folder / "summary.test.yml"
    path.write_text(json.dumps(page | {"tests": [asked]}))
    found = shutil.which("promtool")
    assert found is not None
    done = subprocess.run([found, "test", "rules", str(path)], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr
