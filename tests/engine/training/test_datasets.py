import json
import os
import zipfile
from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.training import datasets
from engine.training.datasets import (
    UNREADABLE,
    CaptionedPicture,
    Conversation,
    open_pictures,
    read_dialogue_set,
    read_dialogues,
    read_folder,
    read_pictures,
    read_rows,
    read_styled_answers,
    thin_out,
)
from engine.types import Role, Turn


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


def test_a_folder_is_read_whole_and_roles_follow_from_names_options_and_captions(tmp_path: Path) -> None:
    sets = {
        "emoji": ["a 3D emoji sticker: mahjong red dragon", "a 3D emoji sticker: joker"],
        "pets": ["dog", "black cat", "dog"],
        "places": ["A dog is asleep on a bed.", "Two men are walking by the sea."],
        "odd": ["dog", "cat"],
    }
    for name, captions in sets.items():
        (tmp_path / name).mkdir()
        write(tmp_path, f"{name}.jsonl", *[{"image": f"{j}.jpg", "captions": [c]} for j, c in enumerate(captions)])
    write(tmp_path, "talk.jsonl", {"user": "hi", "witty": "Ha"})
    (tmp_path / "notes.txt").write_text("not a data set")
    pictures, dialogues = read_folder(tmp_path, roles={"odd": "scenes"})
    assert {one.name: one.role for one in pictures} == {
        "emoji": "things", "pets": "things", "places": "scenes", "odd": "scenes",
    }  # fmt: skip
    assert {one.name: one.share for one in pictures} == {"emoji": 600.0, "pets": 3.0, "places": 2.0, "odd": 2.0}
    assert [one.name for one in dialogues] == ["talk"]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_data_sets_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=name):
        read_folder(tmp_path / name)


def test_pictures_without_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "pets.jsonl", {"image": "a.jpg", "captions": ["a dog"]})
    with pytest.raises(ConfigurationError, match=r"neither a folder pets/ nor pets\.zip"):
        read_folder(tmp_path)


def test_a_zip_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets.zip").write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match=r"pets\.zip cannot be opened"), open_pictures(tmp_path, "pets"):
        pass


def test_a_row_names_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    with open_pictures(tmp_path, "pets") as read:
        for name in ("../secret.txt", str(tmp_path / "secret.txt")):
            with pytest.raises(FileNotFoundError):
                read(name)


def test_conversations_have_a_persona_and_end_with_a_reply(tmp_path: Path) -> None:
    row = {
        "persona": ["I ski."],
        "turns": [
            {"role": "user", "text": "Hi"},
            {"role": "assistant", "text": "Hello"},
            {"role": "user", "text": "Bye"},
        ],
        "image": "a.jpg",
    }
    (tmp_path / "talk").mkdir()
    found = read_dialogue_set(write(tmp_path, "talk.jsonl", row))
    (conversation,) = found.exchanges
    turns = (Turn(Role.USER, "Hi"), Turn(Role.ASSISTANT, "Hello"))
    assert conversation == Conversation(("I ski.",), turns, "a.jpg")
    assert found.files is not None


def test_a_conversation_with_a_picture_needs_files(tmp_path: Path) -> None:
    turns = [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Hello"}]
    with pytest.raises(ConfigurationError, match="neither a folder talk/"):
        read_dialogue_set(write(tmp_path, "talk.jsonl", {"turns": turns, "image": "a.jpg"}))


@pytest.mark.parametrize(
    "turns", [None, [], "hi", ["hi"], [{"role": "user"}], [{"role": "narrator", "text": "x"}], [{"text": "x"}]]
)
def test_turns_without_role_and_text_are_named(tmp_path: Path, turns: object) -> None:
    good = {"turns": [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Hello"}]}
    with pytest.raises(ConfigurationError, match=r"talk\.jsonl, row 2: .*turns"):
        read_dialogue_set(write(tmp_path, "talk.jsonl", good, {"turns": turns}))


def test_instructions_are_conversations(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1 + 1", "response": "2"}
    (conversation,) = read_dialogue_set(write(tmp_path, "roles.jsonl", row)).exchanges
    assert conversation == Conversation((), (Turn(Role.USER, "Add.\n1 + 1"), Turn(Role.ASSISTANT, "2")))
    with pytest.raises(ConfigurationError, match="row 1: needs the texts"):
        read_dialogue_set(write(tmp_path, "roles.jsonl", {"instruction": "Add."}))


def test_rows_of_no_known_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"odd\.jsonl, row 1: neither pictures .* nor dialogues"):
        read_folder(write(tmp_path, "odd.jsonl", {"x": 1}).parent)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/hostname", "a\0b.jpg", "gone.jpg", "", ".", "large.jpg", "pipe"]
)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_what_is_no_picture_of_the_set_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_zipped: bool
) -> None:
    monkeypatch.setattr(datasets, "MAX_FILE_BYTES", 1000)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    if is_zipped:
        with zipfile.ZipFile(tmp_path / "pets.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("large.jpg", bytes(1001))
    else:
        (tmp_path / "pets").mkdir()
        (tmp_path / "pets" / "large.jpg").write_bytes(bytes(1001))
        os.mkfifo(tmp_path / "pets" / "pipe")
    with open_pictures(tmp_path, "pets") as read, pytest.raises(UNREADABLE):
        read(name)


def test_half_a_character_is_named_with_its_line(tmp_path: Path) -> None:
    whole = write(tmp_path, "whole.jsonl", {"user": "hi", "witty": "🙂"})
    assert read_styled_answers(whole)[0].answers == {"witty": "🙂"}
    (tmp_path / "rows.jsonl").write_text('{"user": "hi"}\n{"user": "\\ud83d"}\n')
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl, line 2: half a surrogate"):
        read_rows(tmp_path / "rows.jsonl")
