"""The report as a table and as JSON, and what became worse since an earlier one."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bot.errors import SettingsError
from bot.scoring.figures import mean_of
from bot.scoring.report import (
    PersonaReport,
    Report,
    as_json,
    changes,
    read_baseline,
    reply_lines,
    show,
    show_against_plain,
)
from bot.scoring.scores import Judged, Score
from bot.scoring.trial import Line, Said


def score(check: str, values: list[float], *, threshold: float | None = None) -> Score:
    judged = tuple(
        Judged(Said("ann", check, str(number), 0, 0, Line("Why?"), "Because."), value, "why", str(number))
        for number, value in enumerate(values)
    )
    estimate = mean_of([[value] for value in values])
    assert estimate is not None
    return Score(check, estimate, len(values), threshold, {}, judged)


def report(*scores: Score, plain: Report | None = None, is_plain: bool = False) -> Report:
    setup = {"model": "tiny", "num_repeats": 1, "is_plain": is_plain}
    return Report(setup, (PersonaReport("ann", "Ann [b]", "en", "d1", scores),), 1.5, plain)


def printed(table: Any) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_table_names_scores_and_misses() -> None:
    missed = report(score("facts", [1, 1, 0, 0], threshold=0.75), score("breaks", [0, 0], threshold=0.1))
    text = printed(show(missed))
    assert "Ann [b]" in text
    assert "0.50 ±.50" in text
    assert "breaks ↓" in text
    assert missed.missed() == ["Ann [b]: facts is 0.50, and its file asks for at least 0.75"]


def test_thresholds_that_nothing_can_miss_are_named() -> None:
    idle = report(score("facts", [0.0, 0.0], threshold=0.0), score("breaks", [1.0, 1.0], threshold=1.0))
    assert idle.missed() == []
    assert idle.idle() == [
        "Ann [b]: no reply can miss its threshold for facts, 0.00",
        "Ann [b]: no reply can miss its threshold for breaks, 1.00",
    ]
    assert report(score("facts", [1.0, 0.0], threshold=0.1), score("grounding", [1.0], threshold=0.0)).idle() == []


def test_json_has_everything_that_ci_needs() -> None:
    values = json.loads(json.dumps(as_json(report(score("breaks", [1, 1, 1, 0], threshold=0.5)))))
    breaks = values["personas"][0]["scores"]["breaks"]
    assert values["format"] == 1
    assert breaks["value"] == 0.75
    assert breaks["is_passed"] is False
    assert breaks["num_items"] == 4
    assert values["missed"]


def test_against_the_plain_prompt_the_same_questions_are_compared() -> None:
    plain = report(score("facts", [0.0, 0.0, 0.0, 1.0] * 5), is_plain=True)
    both = report(score("facts", [1.0, 1.0, 0.0, 1.0] * 5), plain=plain)
    difference = both.against_plain()["facts"]
    assert difference.value == 0.5
    assert difference.low > 0
    assert "+0.50" in printed(show_against_plain(both))
    assert as_json(both)["against_plain"]["facts"]["value"] == 0.5
    assert len(list(reply_lines(both))) == 40


def test_without_a_plain_run_there_is_no_difference() -> None:
    assert report(score("facts", [1])).against_plain() == {}


def test_worse_is_beyond_both_intervals() -> None:
    before = as_json(report(score("facts", [1.0] * 19 + [0.0]), score("breaks", [0.0] * 20)))
    now = report(score("facts", [1.0] * 5 + [0.0] * 15), score("breaks", [0.0] * 10 + [1.0] * 10))
    assert [(change.check, change.is_worse) for change in changes(now, before)] == [("facts", True), ("breaks", True)]
    assert not any(change.is_worse for change in changes(report(score("facts", [1.0] * 18 + [0.0] * 2)), before))
    # An earlier figure that was anything but sure proves no loss.
    unsure, sure = as_json(report(score("facts", [1.0, 1.0, 0.0]))), report(score("facts", [0.5] * 20))
    assert not any(change.is_worse for change in changes(sure, unsure))
    # Better is no regression, whichever way that is.
    better = as_json(now)
    assert not any(change.is_worse for change in changes(report(score("breaks", [0.0] * 20)), better))


def test_a_break_rate_that_is_unsure_is_not_worse() -> None:
    before = as_json(report(score("breaks", [1.0] + [0.0] * 19)))
    now = report(score("breaks", [1.0, 0.0, 0.0]))
    assert not any(change.is_worse for change in changes(now, before))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "personas": []}', '{"format": 1, "personas": [1]}'])
def test_a_baseline_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match="--json"):
        read_baseline(path)


def test_a_missing_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_baseline(tmp_path / "none.json")
