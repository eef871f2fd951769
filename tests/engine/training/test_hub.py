import io
import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

from engine.errors import ConfigurationError
from engine.training.datasets import DialogueSet, PictureSet
from engine.training.hub import HubName, parse, read_hub
from engine.training.options import DataOptions
from engine.types import Role


@pytest.fixture(autouse=True)
def _quietly_and_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def read(source: str, tmp_path: Path, **options: object) -> PictureSet | DialogueSet:
    return read_hub(source, DataOptions.model_validate(options), cache=tmp_path / "cache")


def pictures_on_disk(folder: Path, **columns: datasets.Sequence | list[object]) -> str:
    colours = ["red", "green", "blue"]
    images = [Image.new("RGB", (8, 8), colour) for colour in colours]
    told = {"image": images, "caption": [f"A {colour} square, all alone." for colour in colours], **columns}
    table = datasets.Dataset.from_dict(told).cast_column("image", datasets.Image())
    table.save_to_disk(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf:ann/pets", HubName("ann/pets")),
        ("hf:ann/pets:test", HubName("ann/pets", None, "test")),
        ("hf:ann/pets:train[:10]", HubName("ann/pets", None, "train[:10]")),
        ("hf:ann/pets:large", HubName("ann/pets", "large")),
        ("hf:ann/pets:large:odd", HubName("ann/pets", "large", "odd")),
    ],
)
def test_names_have_parts(source: str, name: HubName) -> None:
    assert parse(source) == name


@pytest.mark.parametrize("source", ["hf:", "hf:a/b:c:d:e", "hf:a/b:"])
def test_other_names_are_refused(source: str) -> None:
    with pytest.raises(ConfigurationError, match="write it as hf:owner/name"):
        parse(source)


def test_a_saved_set_of_pictures_is_read(tmp_path: Path) -> None:
    found = read(pictures_on_disk(tmp_path / "squares"), tmp_path)
    assert isinstance(found, PictureSet)
    assert (found.name, found.role, len(found.pictures)) == ("squares", "scenes", 3)
    assert found.pictures[1].captions == ("A green square, all alone.",)
    with found.files.open() as read_picture:
        data = read_picture(found.pictures[1].image)
    assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((4, 4)) == (0, 128, 0)


def test_columns_can_be_told(tmp_path: Path) -> None:
    source = pictures_on_disk(tmp_path / "squares", alt=[["a", "b"], ["c"], []])
    found = read(source, tmp_path, columns={"captions": "alt"}, roles={"squares": "scenes"})
    assert isinstance(found, PictureSet)
    assert [picture.captions for picture in found.pictures] == [("a", "b"), ("c",), ()]
    with pytest.raises(ConfigurationError, match=r"data\.columns\.captions: there is no column words; there are"):
        read(source, tmp_path, columns={"captions": "words"})


def test_a_folder_of_classes_names_things(tmp_path: Path) -> None:
    """What the library calls an image folder: a folder a class."""
    for label in ("tin_can", "shoe"):
        (tmp_path / "pile" / label).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (number, 9, 9)).save(tmp_path / "pile" / label / f"{number}.png")
    found = read(f"hf:{tmp_path / 'pile'}", tmp_path)
    assert isinstance(found, PictureSet)
    assert found.role == "things"
    assert sorted(picture.captions[0] for picture in found.pictures) == ["shoe", "shoe", "tin can", "tin can"]
    with found.files.open() as read_picture:
        assert all(read_picture(picture.image) for picture in found.pictures)


def test_messages_become_conversations(tmp_path: Path) -> None:
    said = [
        {"role": "system", "content": "You are a cat."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Meow"},
        {"role": "user", "content": "Bye"},
    ]
    datasets.Dataset.from_dict({"messages": [said]}).save_to_disk(tmp_path / "talk")
    found = read(f"hf:{tmp_path / 'talk'}", tmp_path)
    assert isinstance(found, DialogueSet)
    (conversation,) = found.exchanges
    assert conversation.persona == ("You are a cat.",)  # type: ignore[union-attr]
    assert [(turn.role, turn.text) for turn in conversation.turns] == [  # type: ignore[union-attr]
        (Role.USER, "Hi"), (Role.ASSISTANT, "Meow"),
    ]  # fmt: skip


def test_lines_of_json_are_read_by_split_and_slice(tmp_path: Path) -> None:
    (tmp_path / "talk").mkdir()
    for split, number in (("train", 5), ("test", 2)):
        rows = [{"conversations": [{"from": "human", "value": f"{split} {j}"}, {"from": "gpt", "value": "yes"}]}
                for j in range(number)]  # fmt: skip
        (tmp_path / "talk" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def lines(source: str) -> list[str]:
        found = read(source, tmp_path)
        return [one.turns[0].text for one in found.exchanges]  # type: ignore[union-attr]

    source = f"hf:{tmp_path / 'talk'}"
    assert len(lines(source)) == 5
    assert lines(f"{source}:test") == ["test 0", "test 1"]
    assert lines(f"{source}:train[1:3]") == ["train 1", "train 2"]
    with pytest.raises(ConfigurationError, match="has no split 'valid'; it has train, test"):
        read(f"{source}:valid", tmp_path)
    with pytest.raises(ConfigurationError, match="sliced by number"):
        read(f"{source}:train[10%]", tmp_path)


def test_a_table_of_neither_kind_is_refused_with_its_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"x": [1]}).save_to_disk(tmp_path / "numbers")
    with pytest.raises(ConfigurationError, match=r"has the columns x; say with --set data\.columns"):
        read(f"hf:{tmp_path / 'numbers'}", tmp_path)


def test_what_cannot_be_found_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        read(f"hf:{tmp_path / 'nowhere'}", tmp_path)


def test_a_column_that_holds_no_pictures_is_told(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"image": [1, 2], "text": ["a", "b"]}).save_to_disk(tmp_path / "odd")
    found = read(f"hf:{tmp_path / 'odd'}", tmp_path)
    assert isinstance(found, PictureSet)
    with pytest.raises(ConfigurationError, match="the column image holds no pictures"), found.files.open():
        pass
