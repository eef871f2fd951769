"""A run's log as pictures: losses, learning rate, gauges such as gates.

Knows the log's lines and nothing else of training. matplotlib is imported only where something is drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = Mapping[str, Any]
Series = tuple[list[int], list[float]]
# The share of the log that a smoothed curve looks back on.
SMOOTHING = 0.02


def draw_plots(log: Sequence[Line], folder: Path) -> list[Path]:
    """Write `loss.png`, `learning_rate.png` and, where the log has gauges, `gauges.png`; nothing for an empty log."""
    learnt = [line for line in log if "loss" in line]
    held_out = [{"step": line["step"], **line["held_out"]} for line in log if "held_out" in line]
    if not learnt:
        return []
    written = [_draw_losses(learnt, held_out, folder / "loss.png")]
    rates = {"learning rate": _series(learnt, ["learning_rate"]), "gradient norm": _series(learnt, ["gradient_norm"])}
    written.append(_draw_rows(rates, folder / "learning_rate.png"))
    names = sorted({name for line in learnt for name in line.get("gauges", {})})
    if names:
        gauges = {name: _series(learnt, ["gauges", name]) for name in names}
        written.append(_draw_together(gauges, folder / "gauges.png"))
    return written


def _draw_losses(learnt: Sequence[Line], held_out: Sequence[Line], path: Path) -> Path:
    """All tasks together, then a row for each: what was learnt from, smoothed, and what was kept back."""
    tasks = sorted({name for line in learnt for name in line.get("tasks", {})})
    places: list[tuple[str, list[str]]] = [("all tasks", ["loss"])]
    if len(tasks) > 1:
        places += [(name, ["tasks", name, "loss"]) for name in tasks]
    figure, rows = _figure(len(places))
    for axes, (title, place) in zip(rows, places, strict=True):
        steps, losses = _series(learnt, place)
        axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(losses), color="tab:blue", label="learnt from")
        looks = _series(held_out, place)
        if looks[0]:
            axes.plot(*looks, color="tab:orange", marker="o", markersize=3, label="kept back")
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(fontsize=8)
    rows[-1].set_xlabel("step")
    figure.savefig(path)
    return path


def _draw_rows(series: Mapping[str, Series], path: Path) -> Path:
    figure, rows = _figure(len(series))
    for axes, (title, points) in zip(rows, series.items(), strict=True):
        axes.plot(*points, linewidth=1)
        axes.set_title(title, loc="left", fontsize=10)
    rows[-1].set_xlabel("step")
    figure.savefig(path)
    return path


def _draw_together(series: Mapping[str, Series], path: Path) -> Path:
    figure, (axes,) = _figure(1)
    for name, points in series.items():
        axes.plot(*points, linewidth=1, label=name)
    axes.legend(fontsize=8)
    axes.set_xlabel("step")
    figure.savefig(path)
    return path


def _figure(num_rows: int) -> tuple[Any, "list[Axes]"]:
    """A figure that no window and no global state knows."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError("plots need more libraries: pip install 'commedia[train]'") from error
    figure = Figure(figsize=(8, 1 + 2.2 * num_rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(num_rows, 1, sharex=True, squeeze=False)
    return figure, [row[0] for row in grid]


def _series(lines: Sequence[Line], place: Sequence[str]) -> Series:
    """Steps and values of one figure, where lines have it."""
    steps, values = [], []
    for line in lines:
        value: Any = line
        for name in place:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            steps.append(line["step"])
            values.append(float(value))
    return steps, values


def smooth(values: Sequence[float]) -> list[float]:
    """An exponential mean over about a fiftieth of the values, unbiased at its beginning."""
    keep = 1 - 1 / max(1.0, SMOOTHING * len(values))
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means
