"""Results as pictures: one SVG a suite, told apart by place and label, not by colour alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker

mpl.use("svg")
import matplotlib.pyplot as plt

# Okabe and Ito: told apart by all common kinds of colour vision.
OURS, OURS_TOO, PEER, PEER_TOO, BASE, GOAL = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#999999", "#333333"

mpl.rcParams.update(
    {
        "svg.hashsalt": "lockbeat",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "figure.facecolor": "white",
    }
)


NOTHING = {"median": 0.0, "min": 0.0, "max": 0.0}
PLAIN = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def colour(name: str) -> str:
    if name.startswith("lockbeat"):
        return OURS_TOO if "pings" in name or "only" in name or "3 inst" in name or "1,000" in name else OURS
    if name in ("pings", "raw"):
        return BASE
    return PEER_TOO if "pottery" in name or "APScheduler" in name else PEER


def short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bars(axes: Any, names: list[str], values: list[dict[str, float]], title: str) -> None:
    """Horizontal bars with their figures beside them; the line is the range of the rounds."""
    places = range(len(names))
    middle = [value["median"] for value in values]
    ends = [[value["median"] - value["min"] for value in values], [value["max"] - value["median"] for value in values]]
    axes.barh(places, middle, color=[colour(name) for name in names], height=0.7)
    axes.errorbar(middle, places, xerr=ends, fmt="none", ecolor=GOAL, elinewidth=1)
    for place, value in zip(places, values, strict=True):
        axes.annotate(short(value["median"]), (value["max"], place), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.18)


def locks(result: dict[str, Any]) -> Any:
    return pairs(result, {"1": "one caller", "64": "64 callers on 64 keys"})


def blocking(result: dict[str, Any]) -> Any:
    return pairs(result, {"1": "one thread", "16": "16 threads"})


def pairs(result: dict[str, Any], by: dict[str, str]) -> Any:
    figure, both = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained", sharey=True)
    speed = result["pairs_per_second"]
    for axes, (callers, who) in zip(both, by.items(), strict=True):
        bars(axes, list(speed), [row[callers] for row in speed.values()], f"pairs/s, {who}")
    both[1].invert_yaxis()
    return figure


def waiting(result: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 2.2), layout="constrained")
    for place, (name, row) in enumerate(result["rows"].items()):
        half, most = row["handoff_p50_ms"]["median"], row["handoff_p99_ms"]
        axes.plot([half, most], [place, place], color=colour(name), linewidth=3, zorder=1)
        axes.scatter([half, most], [place, place], color=[colour(name), "white"], edgecolors=colour(name), s=50, zorder=2)
        axes.annotate(f"{short(half)} / {short(most)}", (most, place), xytext=(8, 0), textcoords="offset points", va="center")
    axes.axvline(2, color=GOAL, linewidth=1, linestyle=":")
    axes.annotate("goal", (2, -0.55), xytext=(3, 0), textcoords="offset points", color=GOAL)
    axes.set_yticks(range(len(result["rows"])), list(result["rows"]))
    axes.set_xscale("log")
    axes.set_ylim(len(result["rows"]) - 0.5, -0.7)
    axes.margins(x=0.15)
    axes.set_title("hand-off between processes, ms: p50 (full) / p99 (hollow)")
    return figure


def renew(result: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 1.6), layout="constrained")
    rows = result["rows"]
    bars(axes, list(rows), [row["round_ms"] for row in rows.values()], f"ms to renew {result['leases']:,} leases")
    return figure


def fire(result: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    sizes = [int(size) for size in result["rows"]["lockbeat"]]
    axes.plot(sizes, sizes, color=GOAL, linewidth=1, linestyle=":")
    ends = []
    for name, by in result["rows"].items():
        rates = [by[str(size)]["fires_per_second"]["median"] for size in sizes if str(size) in by]
        style = "--" if "(" in name or "only" in name else "-"
        axes.plot(sizes[: len(rates)], rates, style, color=colour(name), marker="o", markersize=4)
        ends.append((rates[-1], sizes[len(rates) - 1], name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("jobs, each due every second (dotted: all of them fired)")
    axes.set_title("fires a second, one instance")
    # Direct labels, pushed apart where lines end close together.
    lowest = 0.0
    for rate, size, name in sorted(ends):
        place = max(rate, lowest)
        axes.text(size * 1.15, place, f"{name}: {short(rate)}", color=colour(name), va="center")
        lowest = place * 1.32
    axes.set_xlim(sizes[0] * 0.85, sizes[-1] * 7)
    return figure


def lateness(result: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for name, row in result["rows"].items():
        curve = row["curve_ms"]
        axes.plot(curve, range(1, len(curve) + 1), color=colour(name), linewidth=2)
    # In order of their medians, each label beside its own line at another height.
    ordered = sorted(result["rows"].items(), key=lambda pair: pair[1]["curve_ms"][49])
    for place, (name, row) in enumerate(ordered):
        height = 85 - 75 * place // max(len(ordered) - 1, 1)
        says = f"{name}: {short(row['p50_ms']['median'])} / {short(row['p99_ms']['median'])}"
        at = (row["curve_ms"][height - 1], height)
        axes.annotate(says, at, xytext=(8, 0), textcoords="offset points", color=colour(name), va="center", bbox=PLAIN)
    axes.axvline(20, color=GOAL, linewidth=1, linestyle=":")
    axes.annotate("goal for p99", (20, 2), xytext=(3, 0), textcoords="offset points", color=GOAL)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of jobs")
    axes.set_xlabel("ms after their slot")
    axes.set_title(f"{result['jobs']:,} jobs due at once: p50 / p99 in ms")
    axes.set_xlim(left=1, right=axes.get_xlim()[1] * 6)
    return figure


def idle(result: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
    rows = result["rows"]
    values = [dict.fromkeys(("median", "min", "max"), row["commands_per_second"]) for row in rows.values()]
    bars(axes, list(rows), values, "commands a second of an idle instance")
    axes.axvline(0.2, color=GOAL, linewidth=1, linestyle=":")
    return figure


def registry(result: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for name, by in result["starts"].items():
        sizes = [int(size) for size in by]
        took = [row["start_s"] + (row["declare_s"] or 0) for row in by.values()]
        axes.plot(sizes, took, color=colour(name), marker="o", markersize=4)
        says, at = f"{name}: {short(took[-1])}", (sizes[-1], took[-1])
        axes.annotate(says, at, xytext=(6, 0), textcoords="offset points", color=colour(name), va="center")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.35, y=0.2)
    axes.set_xlabel("jobs")
    axes.set_title("seconds to the first start, jobs declared")
    return figure


def scale(result: dict[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
    rows = {
        f"lockbeat, {how}, {others} beside": row["server_cpu"] / by["0"]["server_cpu"]
        for how, by in result["shared"].items()
        for others, row in by.items()
    }
    values = [dict.fromkeys(("median", "min", "max"), value) for value in rows.values()]
    bars(axes, list(rows), values, f"server CPU of {result['due']:,} slots a second, over that of one instance alone")
    axes.axvline(1.2, color=GOAL, linewidth=1, linestyle=":")
    return figure


def tasks(result: dict[str, Any]) -> Any:
    rows = {name: row["run"] for name, row in result["rows"].items()}
    sizes = list(dict.fromkeys(size for by in rows.values() for size in by))
    across = (3 + 3 * len(sizes), 3.6)
    figure, ((*several,),) = plt.subplots(1, len(sizes), figsize=across, layout="constrained", sharey=True, squeeze=False)
    for axes, size in zip(several, sizes, strict=True):
        names = list(rows)
        values = [rows[name].get(size, {}).get("tasks_per_second", NOTHING) for name in names]
        bars(axes, names, values, f"tasks/s, concurrency {size}")
        axes.margins(x=0.3)
    if len(sizes) % 2 == 0:  # the axis is shared, and each of them turned it
        several[0].invert_yaxis()
    return figure


def plain_numbers(figure: Any) -> None:
    """1,000, not ten to the third."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                if isinstance(axis.get_major_locator(), mpl.ticker.LogLocator):
                    axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(lambda value, _: f"{value:,g}")
                axis.set_minor_formatter(mpl.ticker.NullFormatter())
            elif isinstance(axis.get_major_formatter(), mpl.ticker.ScalarFormatter):
                axis.set_major_formatter(lambda value, _: f"{value:,g}")


def draw(results: dict[str, Any], directory: Path) -> dict[str, str]:
    """Suite -> file name."""
    drawn = {}
    for name, result in results.items():
        if name not in globals():
            continue  # its table says all
        figure = globals()[name](result)
        plain_numbers(figure)
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
        drawn[name] = f"{name}.svg"
    return drawn
