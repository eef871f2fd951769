from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.evaluation.sets import draw, find_sets
from tests.engine.evaluation.tiny import write_rows, write_sets


def test_sets_are_known_by_what_they_hold(tmp_path: Path) -> None:
    found = find_sets(write_sets(tmp_path))
    assert (found.pictures, found.styled_answers, found.dialogues) == (("first",), ("second",), ("third",))


def test_other_rows_are_named_as_unknown(tmp_path: Path) -> None:
    write_rows(write_sets(tmp_path) / "notes.jsonl", [{"note": "milk"}])
    write_rows(tmp_path / "lonely.jsonl", [{"user": "hi", "friendly": "only one style"}])
    assert find_sets(tmp_path).unknown == ("lonely", "notes")


def test_a_folder_without_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no data set"):
        find_sets(tmp_path)
    with pytest.raises(ConfigurationError, match="is no folder"):
        find_sets(tmp_path / "nowhere")


def test_a_broken_set_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"image": "a.jpg", "captions": ["a"]}\n{"image": \n')
    with pytest.raises(ConfigurationError, match=r"broken\.jsonl, line 2"):
        find_sets(tmp_path)


def test_a_part_is_drawn_by_the_seed_and_keeps_its_order() -> None:
    items = list(range(100))
    drawn = draw(items, limit=10, seed=1)
    assert drawn == sorted(drawn) == draw(items, limit=10, seed=1)
    assert drawn != draw(items, limit=10, seed=2)
    assert drawn != items[:10]
    assert draw(items, limit=None, seed=1) == draw(items, limit=100, seed=1) == items


def test_every_row_and_every_archive_is_looked_at_before_anything_is_measured(tmp_path: Path) -> None:
    sets = write_sets(tmp_path)
    with (sets / "third.jsonl").open("a") as rows:
        rows.write('{"personas": [], "turns": []}\n')
    with pytest.raises(ConfigurationError, match=r"third\.jsonl, row 5"):
        find_sets(sets)
    (sets / "third.jsonl").unlink()
    (sets / "first.zip").unlink()
    with pytest.raises(ConfigurationError, match=r"neither a folder first/ nor first\.zip"):
        find_sets(sets)
