from pathlib import Path

import pytest
from PIL import Image

from engine.errors import ConfigurationError
from engine.training.plots import draw_plots, smooth


def a_log(num_steps: int = 30) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for step in range(1, num_steps + 1):
        tasks = {"captioning": {"loss": 3 / step}} | ({"masked": {"loss": 2 / step}} if step % 2 else {})
        lines.append(
            {"step": step, "loss": 5 / step, "tasks": tasks, "learning_rate": 0.1 / step, "gradient_norm": None,
             "gauges": {"readout": step / 100}}
        )  # fmt: skip
        if step % 10 == 0:
            lines.append({"step": step, "held_out": {"loss": 6 / step, "tasks": {"captioning": {"loss": 4 / step}}}})
    return lines


def test_a_log_is_drawn(tmp_path: Path) -> None:
    written = draw_plots(a_log(), tmp_path)
    assert [path.name for path in written] == ["loss.png", "learning_rate.png", "gauges.png"]
    for path in written:
        with Image.open(path) as picture:
            assert picture.width == 800
            assert len(picture.convert("RGB").getcolors(maxcolors=10**6) or []) > 10


def test_each_task_has_its_row(tmp_path: Path) -> None:
    many, one = tmp_path / "many", tmp_path / "one"
    many.mkdir()
    one.mkdir()
    draw_plots(a_log(), many)
    draw_plots([{"step": 1, "loss": 1.0, "tasks": {"captioning": {"loss": 1.0}}}], one)
    with Image.open(many / "loss.png") as three_rows, Image.open(one / "loss.png") as one_row:
        assert three_rows.height > 2 * one_row.height
    assert not (one / "gauges.png").exists()


def test_an_empty_log_draws_nothing(tmp_path: Path) -> None:
    assert draw_plots([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'commedia\[train\]'"):
        draw_plots(a_log(), tmp_path)


def test_smoothing_keeps_a_constant_and_follows_slowly() -> None:
    assert smooth([2.0] * 50) == pytest.approx([2.0] * 50)
    steps = smooth([0.0] * 100 + [1.0] * 100)
    assert 0 < steps[105] < steps[150] < 1
    assert smooth([]) == []
