"""Plots of a run as SVG: ratios by case, and curves of growing work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw(run: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the plots beside the report; returns their paths."""
    import matplotlib as mpl

    mpl.use("svg")
    return [path for path in (_bars(run, folder), *_curves(run, folder)) if path is not None]


def _bars(run: Mapping[str, Any], folder: Path) -> Path | None:
    """How far each measured bar is from its limit; 1 is the bar itself."""
    import matplotlib.pyplot as plt

    judged = [bar for case in run["cases"] for bar in case["bars"] if bar["figure"]]
    if not judged:
        return None
    margins = [
        bar["figure"] / bar["limit"] if bar["measure"] == "speedup" else bar["limit"] / bar["figure"]
        for bar in judged
    ]
    figure, axes = plt.subplots(figsize=(10, 0.32 * len(judged) + 1.2))
    axes.barh(
        [bar["claim"] for bar in judged],
        margins,
        color=["tab:green" if margin >= 1 else "tab:orange" for margin in margins],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("margin over the bar (1 = the bar)")
    axes.invert_yaxis()
    return _save(figure, folder / f"{run['profile']}-bars.svg")


def _curves(run: Mapping[str, Any], folder: Path) -> list[Path]:
    """One plot for each curve: cost of each contender as the work grows."""
    import matplotlib.pyplot as plt

    curves: dict[tuple[str, str, str], dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for case in run["cases"]:
        if case["curve"]:
            key = (case["curve"]["name"], case["curve"]["unit"], case["unit"])
            for name, contender in case["contenders"].items():
                curves[key][name].append((case["curve"]["x"], contender["summary"]["median"]))
    paths = []
    for (name, x_unit, unit), contenders in curves.items():
        figure, axes = plt.subplots(figsize=(8, 4.5))
        for contender, points in contenders.items():
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=contender)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(x_unit)
        axes.set_ylabel(unit)
        axes.set_title(name)
        axes.legend()
        slug = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
        paths.append(_save(figure, folder / f"{run['profile']}-{slug}.svg"))
    return paths


def _save(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return path
