"""Pictures of figures: bars with their intervals, and recall curves. Draws without a display."""

import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from engine.evaluation.extras import needing_extras
from engine.evaluation.figures import Curve, Figure, Measured

_UNFIT_FOR_NAMES = re.compile(r"[^\w-]+")
BAR_HEIGHT_INCHES = 0.32

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def draw_plots(measured: Measured, folder: Path) -> list[Path]:
    """One picture a group and set, and one of recall curves a set; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for (group, set_name), figures in _by(measured.figures, lambda one: (one.group, one.set_name)).items():
        files.append(_draw_bars(figures, title=f"{group}: {set_name}", path=_path(folder, group, set_name)))
    for set_name, curves in _by(measured.curves, lambda one: one.set_name).items():
        files.append(_draw_curves(curves, title=f"recall: {set_name}", path=_path(folder, "recall", set_name)))
    return files


def _by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _draw_bars(figures: list[Figure], *, title: str, path: Path) -> Path:
    values = [figure.estimate.value for figure in figures]
    below, above = (
        [0.0 if end is None else abs(end - value) for end, value in zip(ends, values, strict=True)]
        for ends in (
            [figure.estimate.low for figure in figures],
            [figure.estimate.high for figure in figures],
        )
    )
    drawing, axes = _new_drawing(height=1 + BAR_HEIGHT_INCHES * len(figures))
    places = range(len(figures))
    axes.barh(places, values, xerr=[below, above], capsize=2, color="#4878a8", ecolor="#333333")
    axes.set_yticks(places, [figure.name for figure in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    return _save(drawing, path)


def _draw_curves(curves: list[Curve], *, title: str, path: Path) -> Path:
    drawing, axes = _new_drawing(height=4.5)
    for curve in curves:
        axes.plot(range(1, len(curve.values) + 1), curve.values, label=curve.name)
    axes.set_xlabel("candidates looked at")
    axes.set_ylabel("recall")
    axes.set_ylim(0, 1)
    axes.set_title(title)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return _save(drawing, path)


def _new_drawing(*, height: float) -> tuple[Any, Any]:
    """A drawing of its own, not pyplot's: that would keep every one of them, and ask for a display."""
    with needing_extras():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Drawing
    drawing = Drawing(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing, drawing.add_subplot()


def _save(drawing: Any, path: Path) -> Path:  # noqa: ANN401 - matplotlib is imported only where it draws
    drawing.savefig(path, dpi=120)
    return path


def _path(folder: Path, *parts: str) -> Path:
    return folder / f"{'-'.join(_UNFIT_FOR_NAMES.sub('-', part) for part in parts)}.png"
