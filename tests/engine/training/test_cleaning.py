import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ConfigurationError
from engine.training import cleaning
from engine.training.cleaning import Report, key_of, normalise, prepare_data, split
from engine.training.datasets import (
    CaptionedPicture,
    DataSets,
    FilesOnDisk,
    PersonaDialogue,
    PictureSet,
    StyledAnswers,
    TrainingData,
)
from engine.training.options import DataOptions


def photo(number: int, *, size: int = 64, quality: int = 95) -> bytes:
    """A picture of soft spots, another for every number; the same in any size and quality."""
    chance = np.random.default_rng(number)
    spots = Image.fromarray(chance.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    file = io.BytesIO()
    spots.resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
    return file.getvalue()


def a_set(folder: Path, name: str, rows: dict[str, tuple[bytes | None, str]]) -> None:
    """File name → its bytes (none: it is missing), its caption."""
    (folder / name).mkdir(parents=True)
    for file, (data, _) in rows.items():
        if data is not None:
            (folder / name / file).write_bytes(data)
    lines = [json.dumps({"image": file, "captions": [caption]}) for file, (_, caption) in rows.items()]
    (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def jsonl(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare(folder: Path, *exclude: Path, **options: object) -> tuple[TrainingData, Report]:
    return prepare_data(
        [str(folder)],
        DataOptions.model_validate(options),
        cache=folder.parent / "cache",
        advance=lambda *_: None,
        exclude=exclude,
    )


def images_of(data: TrainingData) -> set[str]:
    return {picture.image for part in (data.learn, data.held_out) for one in part.pictures for picture in one.pictures}


def reasons_of(report: Report) -> dict[str, str]:
    return {one.item: one.reason for one in report.skipped}


SCENES = {f"{number}.jpg": (photo(number), f"A long sentence that tells of scene {number}.") for number in range(6)}


def test_texts_are_normalised() -> None:
    assert normalise(" Cafe\u0301\u00a0 au\x00\nlait\ufeff ") == "Café au lait"
    assert key_of("Hello,  WORLD!") == key_of("hello world")
    assert key_of("🙂") != key_of("🙃")


def test_what_is_missing_broken_or_too_large_is_left_out_and_listed(tmp_path: Path) -> None:
    bad = {
        "gone.jpg": (None, "Nobody has seen this scene so far."),
        "broken.jpg": (b"broken", "Something that can not be decoded at all."),
        "cut.jpg": (photo(7)[:300], "Something that ends much too early for a picture."),
        "large.jpg": (photo(8, size=200), "Something that is much larger than all the others."),
        "silent.jpg": (photo(9), "  "),
        "long.jpg": (photo(10), "word " * 61),
    }
    a_set(tmp_path / "data", "scenes", SCENES | bad)
    data, report = prepare(tmp_path / "data", max_image_pixels=10_000)
    assert images_of(data) == set(SCENES)
    assert reasons_of(report) == {
        "gone.jpg": "the file is missing or cannot be read",
        "broken.jpg": "cannot be decoded as a picture",
        "cut.jpg": "cannot be decoded as a picture",
        "large.jpg": "larger than 10000 pixels (40000)",
        "silent.jpg": "no caption",
        "long.jpg": "no caption is short enough",
    }
    (told,) = report.as_json(digest="d")["sets"]
    assert told["rows"] == 12
    assert told["learnt"] + told["held_out"] == 6
    assert told["skipped"]["cannot be decoded as a picture"] == 2
    assert told["skipped"]["larger than 10000 pixels"] == 1


def test_a_set_that_is_mostly_missing_is_an_error_that_names_a_file(tmp_path: Path) -> None:
    rows = {"0.jpg": SCENES["0.jpg"], "a.jpg": (None, "One scene."), "b.jpg": (None, "Another scene.")}
    a_set(tmp_path / "data", "scenes", rows)
    with pytest.raises(ConfigurationError, match=r"2 of the 3 pictures of scenes are missing, like a\.jpg"):
        prepare(tmp_path / "data")


def test_a_set_without_any_good_picture_is_an_error(tmp_path: Path) -> None:
    a_set(tmp_path / "data", "scenes", {"a.jpg": (b"broken", "One scene."), "b.jpg": (b"bad", "Another scene.")})
    with pytest.raises(ConfigurationError, match="no picture of scenes can be learnt from: 2 times, cannot be decoded"):
        prepare(tmp_path / "data")


def test_the_same_picture_is_learnt_once_in_any_size_and_quality(tmp_path: Path) -> None:
    twins = {
        "same.jpg": (photo(1), "Other words for what was there before."),
        "small.jpg": (photo(2, size=48, quality=70), "Other words for a smaller one of those."),
    }
    a_set(tmp_path / "data", "scenes", SCENES | twins)
    data, report = prepare(tmp_path / "data")
    assert images_of(data) == set(SCENES)
    assert reasons_of(report) == {
        "same.jpg": "the same file as another (scenes/1.jpg)",
        "small.jpg": "the same picture as another (scenes/2.jpg)",
    }


def test_things_that_look_alike_stay_where_their_names_differ(tmp_path: Path) -> None:
    """Two clocks that differ in their hands alone."""
    things = {
        "one.jpg": (photo(1), "one o'clock"),
        "two.jpg": (photo(1, size=60), "two o'clock"),
        "again.jpg": (photo(1, size=56), "One o'clock!"),
    }
    a_set(tmp_path / "data", "clocks", things)
    data, _ = prepare(tmp_path / "data")
    assert images_of(data) == {"one.jpg", "two.jpg"}


def test_hashes_of_all_distances_are_found(tmp_path: Path) -> None:
    """The index by pieces misses none that a comparison with all would find."""
    chance = np.random.default_rng(0)
    options = DataOptions(max_hash_distance=3)
    cleaner = cleaning._PictureCleaner(
        options, cleaning.PictureHashes(tmp_path / "h"), cleaning._Refused(), Report(), advance=lambda *_: None
    )
    code = int(chance.integers(0, 2**63))
    for place in cleaner._places(code, ""):
        cleaner._alike[place].append((code, "it"))
    for distance in (0, 1, 2, 3, 4):
        for _ in range(50):
            other = code
            for bit in chance.choice(64, distance, replace=False):
                other ^= 1 << int(bit)
            assert bool(cleaner._twin(other, "")) is (distance <= 3)


def test_nothing_of_an_excluded_folder_is_learnt_however_it_is_called(tmp_path: Path) -> None:
    measured = {"x.jpg": SCENES["3.jpg"], "y.jpg": (photo(4, size=40, quality=60), "It has been made smaller.")}
    a_set(tmp_path / "eval", "held", measured)
    jsonl(tmp_path / "eval" / "lines.jsonl", {"user": "Hi there", "witty": "Ha"})
    a_set(tmp_path / "data", "scenes", SCENES)
    jsonl(tmp_path / "data" / "talk.jsonl", {"user": "hi, there!", "witty": "Ho"}, {"user": "Bye", "witty": "Ciao"})
    data, report = prepare(tmp_path / "data", tmp_path / "eval")
    assert images_of(data) == {"0.jpg", "1.jpg", "2.jpg", "5.jpg"}
    assert reasons_of(report) == dict.fromkeys(("3.jpg", "4.jpg", "row 1"), "in a set that is measured with")
    assert [one.user for one in data.learn.answers] == ["Bye"]
    assert report.as_json(digest="d")["exclude"] == [str(tmp_path / "eval")]


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_set(tmp_path / "data", "scenes", SCENES)
    first, _ = prepare(tmp_path / "data")
    monkeypatch.setattr(cleaning, "perceptual_hash", lambda _: pytest.fail("decoded again"))
    again, _ = prepare(tmp_path / "data")
    assert again == first


def test_a_damaged_file_of_hashes_is_made_anew(tmp_path: Path) -> None:
    a_set(tmp_path / "data", "scenes", SCENES)
    first, _ = prepare(tmp_path / "data")
    (tmp_path / "cache" / "picture-hashes.json").write_text("{")
    assert prepare(tmp_path / "data")[0] == first


def test_a_missing_library_is_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    a_set(tmp_path / "data", "scenes", SCENES)
    with pytest.raises(ConfigurationError, match=r"pip install 'commedia\[train\]'"):
        prepare(tmp_path / "data")


def test_a_set_of_things_is_thinned_by_caption(tmp_path: Path) -> None:
    a_set(tmp_path / "data", "pets", {f"{j}.jpg": (photo(j), "a photo of a dog") for j in range(5)})
    data, report = prepare(tmp_path / "data", max_per_caption=3)
    assert images_of(data) == {"0.jpg", "1.jpg", "2.jpg"}
    assert len(report.skipped) == 2


def test_roles_and_shares_can_be_told(tmp_path: Path) -> None:
    a_set(tmp_path / "data", "pets", {f"{j}.jpg": (photo(j), f"a photo of a dog {j}") for j in range(4)})
    (told,) = prepare(tmp_path / "data", roles={"pets": "scenes"}, shares={"pets": 7})[0].learn.pictures
    assert (told.role, told.share) == ("scenes", 7.0)
    (guessed,) = prepare(tmp_path / "data")[0].learn.pictures
    assert (guessed.role, guessed.share) == ("things", 4.0)
    with pytest.raises(ConfigurationError, match="not there: pots"):
        prepare(tmp_path / "data", roles={"pots": "scenes"})


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        jsonl(tmp_path / folder / "talk.jsonl", {"user": "hi", "witty": "Ha"})
    with pytest.raises(ConfigurationError, match="two data sets are called talk"):
        prepare_data(
            [str(tmp_path / "one"), str(tmp_path / "two")], DataOptions(), cache=tmp_path, advance=lambda *_: None
        )


def test_dialogues_are_normalised_bounded_and_without_duplicates(tmp_path: Path) -> None:
    people = [["I  ski.", "I ski."], ["I cook."]]
    long = "word " * 30
    jsonl(
        tmp_path / "data" / "people.jsonl",
        {"personas": people, "turns": ["1: Hi!", "2: Hello  you", f"1: {long}", "2: What?"]},
        {"personas": people, "turns": ["1: hi", "2: hello, you!"]},
        {"personas": people, "turns": [f"1: {long}", "2: What?"]},
    )
    data, report = prepare(tmp_path / "data", max_turn_words=20)
    (dialogue,) = (*data.learn.dialogues, *data.held_out.dialogues)
    assert dialogue == PersonaDialogue((("I ski.",), ("I cook.",)), ((0, "Hi!"), (1, "Hello you")))
    assert reasons_of(report) == {"row 2": "the same as another row", "row 3": "empty, or longer than 20 words"}


def test_a_conversation_shows_its_picture_or_is_left_out(tmp_path: Path) -> None:
    turns = [{"role": "user", "text": "Look"}, {"role": "assistant", "text": "Nice\n\n\n\nVery"}]
    rows = [
        {"persona": ["I am a cat."], "turns": turns, "image": "0.jpg"},
        {"turns": [{"role": "user", "text": "And this?"}, turns[1]], "image": "1.jpg"},
        {"turns": [{"role": "user", "text": "And that?"}, turns[1]], "image": "broken.jpg"},
    ]
    jsonl(tmp_path / "data" / "cats.jsonl", *rows)
    (tmp_path / "data" / "cats").mkdir()
    for name, content in (("0.jpg", photo(0)), ("1.jpg", photo(1)), ("broken.jpg", b"")):
        (tmp_path / "data" / "cats" / name).write_bytes(content)
    data, report = prepare(tmp_path / "data")
    (shown,) = data.learn.with_role("shown")
    conversations = (*data.learn.conversations, *data.held_out.conversations)
    assert {one.picture for one in conversations} == {picture.digest for picture in shown.pictures}
    assert data.held_out.with_role("shown") == (shown,)
    assert conversations[0].turns[1].text == "Nice\n\nVery"
    assert reasons_of(report)["row 3"] == "its picture is left out"


def test_a_set_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    jsonl(tmp_path / "data" / "talk.jsonl", {"user": "hi", "witty": "word " * 300})
    with pytest.raises(ConfigurationError, match="no row of talk can be learnt from"):
        prepare(tmp_path / "data")


def test_the_split_depends_on_content_alone_and_keeps_groups_together() -> None:
    answers = [StyledAnswers(f"line {j}", {"witty": f"answer {j // 3}"}) for j in range(300)]
    learn, held_out = split(DataSets(answers=tuple(answers)), share=0.1, seed=0)
    assert len(held_out.answers) == 30
    assert not {str(one.answers) for one in learn.answers} & {str(one.answers) for one in held_out.answers}
    again = split(DataSets(answers=tuple(reversed(answers))), share=0.1, seed=0)[1]
    assert {one.user for one in again.answers} == {one.user for one in held_out.answers}
    other = split(DataSets(answers=tuple(answers)), share=0.1, seed=1)[1]
    assert {one.user for one in other.answers} != {one.user for one in held_out.answers}


def test_a_small_set_keeps_one_row_back_and_a_single_row_none(tmp_path: Path) -> None:
    def kept_back(number: int) -> int:
        pictures = tuple(CaptionedPicture(f"{j}", ("a dog",), f"{j}") for j in range(number))
        sets = DataSets((PictureSet("pets", "things", pictures, FilesOnDisk(tmp_path, "pets")),))
        return sum(len(one.pictures) for one in split(sets, share=0.05, seed=0)[1].pictures)

    assert (kept_back(1), kept_back(2), kept_back(10), kept_back(100)) == (0, 1, 1, 5)


def test_the_digest_changes_with_what_is_learnt_from(tmp_path: Path) -> None:
    a_set(tmp_path / "data", "scenes", SCENES)
    first = prepare(tmp_path / "data")[0].digest
    assert prepare(tmp_path / "data")[0].digest == first
    assert prepare(tmp_path / "data", held_out=0.2)[0].digest != first
    (tmp_path / "data" / "scenes" / "0.jpg").write_bytes(photo(50))
    assert prepare(tmp_path / "data")[0].digest != first


def test_whatever_a_reader_raises_over_a_damaged_picture_it_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Image.open

    def reader(file: io.BytesIO) -> Image.Image:
        if file.getvalue() == b"odd":
            raise NotImplementedError("unsupported")
        return opened(file)

    monkeypatch.setattr(Image, "open", reader)
    a_set(tmp_path / "data", "scenes", SCENES | {"odd.blp": (b"odd", "A scene of another kind altogether.")})
    _, report = prepare(tmp_path / "data")
    assert reasons_of(report)["odd.blp"] == cleaning.BROKEN


def test_two_runs_keep_their_hashes_in_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, others = (cleaning.PictureHashes(tmp_path / "hashes.json") for _ in range(2))
    ours.facts(photo(1), max_pixels=10**6)
    others.facts(photo(2), max_pixels=10**6)
    replaced = Path.replace

    def after_the_other(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replaced)
        monkeypatch.setattr(cleaning.os, "getpid", lambda: 2)
        others.save()
        return path.replace(target)

    monkeypatch.setattr(Path, "replace", after_the_other)
    monkeypatch.setattr(cleaning.os, "getpid", lambda: 1)
    ours.save()
    assert len(json.loads((tmp_path / "hashes.json").read_text())["pictures"]) == 1
