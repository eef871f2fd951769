"""What was measured, for people and for programs: a table, and JSON. Knows how nothing was measured."""

import json
import math
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table

from engine.evaluation.figures import CONFIDENCE, Estimate, Figure, Measured

PACKAGES = ("commedia", "torch", "transformers", "numpy", "scipy", "scikit-learn", "sacrebleu", "pycocoevalcap")


def tables(figures: Iterable[Figure]) -> Iterable[Table]:
    """One table a set and group."""
    by_place: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        by_place.setdefault((figure.group, figure.set_name), []).append(figure)
    for (group, set_name), found in by_place.items():
        table = Table("figure", "value", f"{CONFIDENCE:.0%} interval", "n", title=f"{group}: {set_name}", expand=False)
        for figure in found:
            estimate = figure.estimate
            table.add_row(figure.name, f"{estimate.value:.3f}", _interval(estimate), str(estimate.num_items))
        yield table


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "one item: none"
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def as_json(measured: Measured, **about: object) -> dict[str, Any]:
    """Everything, with `about` how it came to be. What is no number becomes `null`: JSON knows no NaN."""
    return {
        **about,
        "python": sys.version.split()[0],
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "figures": [_figure(figure) for figure in measured.figures],
        "curves": [
            {"set": curve.set_name, "curve": curve.name, "values": list(curve.values)} for curve in measured.curves
        ],
        "notes": measured.notes,
        "examples": measured.examples,
    }


def _figure(figure: Figure) -> dict[str, Any]:
    estimate = figure.estimate
    return {
        "group": figure.group,
        "set": figure.set_name,
        "figure": figure.name,
        "value": _number(estimate.value),
        "ci95": [_number(estimate.low), _number(estimate.high)],
        "n": estimate.num_items,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write beside and rename, so that an interrupted run leaves no half file."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)
