import json
import zipfile
from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.training.datasets import (
    CaptionedPicture,
    open_pictures,
    read_dialogues,
    read_pictures,
    read_rows,
    read_styled_answers,
    thin_out,
)


def write(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pictures_come_with_their_captions(tmp_path: Path) -> None:
    write(tmp_path, "pets.jsonl", {"image": "a.jpg", "captions": [" a dog "], "licence": "CC0"})
    assert read_pictures(tmp_path, "pets") == [CaptionedPicture("a.jpg", ("a dog",))]


@pytest.mark.parametrize("row", [{"image": "a.jpg"}, {"captions": ["a"]}, {"image": "a.jpg", "captions": []}])
def test_a_row_without_picture_or_caption_is_named(tmp_path: Path, row: dict[str, object]) -> None:
    write(tmp_path, "pets.jsonl", {"image": "a.jpg", "captions": ["a dog"]}, row)
    with pytest.raises(ConfigurationError, match="row 2"):
        read_pictures(tmp_path, "pets")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(ConfigurationError, match="line 3"):
        read_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[1]\n", b'{"a": "\xff"}\n'])
def test_what_is_no_data_set_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl"):
        read_rows(tmp_path / "rows.jsonl")


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pets\.jsonl cannot be read"):
        read_pictures(tmp_path, "pets")


def test_files_are_read_from_a_folder_or_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        archive.writestr("a.jpg", b"zip")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.jpg").write_bytes(b"folder")
    with open_pictures(tmp_path, "zipped") as read:
        assert read("a.jpg") == b"zip"
    with open_pictures(tmp_path, "plain") as read:
        assert read("a.jpg") == b"folder"
    with (
        pytest.raises(ConfigurationError, match=r"neither a folder pets/ nor pets\.zip"),
        open_pictures(tmp_path, "pets"),
    ):
        pass


def test_a_set_is_thinned_by_caption() -> None:
    pictures = [CaptionedPicture(f"{number}.jpg", (("dog", "cat")[number % 2],)) for number in range(10)]
    kept = thin_out(pictures, max_per_caption=2)
    assert [picture.image for picture in kept] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_answers_come_by_style(tmp_path: Path) -> None:
    path = write(
        tmp_path, "answers.jsonl", {"user": "hi", "witty": "Ha", "friendly": "Hello", "number": 3}, {"user": "x"}
    )
    (answers,) = read_styled_answers(path)
    assert answers.answers == {"witty": "Ha", "friendly": "Hello"}


def test_dialogues_know_who_speaks(tmp_path: Path) -> None:
    row = {"personas": [["I ski."], ["I cook."]], "turns": ["1: Hi!", "2: Hello: you?", "nobody"]}
    (dialogue,) = read_dialogues(write(tmp_path, "dialogues.jsonl", row))
    assert dialogue.personas == (("I ski.",), ("I cook.",))
    assert dialogue.turns == ((0, "Hi!"), (1, "Hello: you?"))


def test_dialogues_in_which_nobody_speaks_are_left_out(tmp_path: Path) -> None:
    personas = [["I ski."], ["I cook."]]
    spoken, silent = {"personas": personas, "turns": ["1: Hi!"]}, {"personas": personas, "turns": []}
    assert len(read_dialogues(write(tmp_path, "dialogues.jsonl", spoken, silent))) == 1
    with pytest.raises(ConfigurationError, match="no dialogue"):
        read_dialogues(write(tmp_path, "silent.jsonl", silent))


def test_a_dialogue_with_one_person_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "dialogues.jsonl", {"personas": [["I ski."]], "turns": []})
    with pytest.raises(ConfigurationError, match="row 1"):
        read_dialogues(path)
