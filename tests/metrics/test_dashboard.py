"""The dashboard asks for what there is, in words that Prometheus understands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lockbeat.metrics import Metrics
from tests.beats import Beats
from tests.conftest import needs, only
from tests.metrics.conftest import read
from tests.metrics.promtool import RULES, promtool

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards" / "lockbeat.json"
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"].replace("$__rate_interval", "5m") for panel in panels() for target in panel["targets"]]


@needs("promtool")
def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    page = tmp_path / "panels.yml"
    page.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(page))


def test_panels_have_names_and_say_what_they_show_and_none_lies_on_another() -> None:
    places = set[tuple[int, int]]()
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places
        places |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


@only("valkey")
async def test_what_rules_dashboard_and_docs_name_is_what_is_scraped(beats: Beats) -> None:
    beat = beats()
    beat.every(3600, name="hourly")(lambda: None)
    metrics = Metrics(beat)
    async with beat.lifespan():
        scraped = read(metrics.text() + await metrics.store_text())
    names = {name for name, _ in scraped}
    there = names | {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    for text in (*expressions(), RULES.read_text(), DOCS.read_text()):
        assert set(re.findall(r"\blockbeat_[a-z_]+[a-z]\b", text)) - there == set()
    documented = set(re.findall(r"\blockbeat_[a-z_]+[a-z]\b", DOCS.read_text()))
    assert {name for name in names if re.sub(r"_(bucket|sum|count)$", "", name) not in documented} == set()
