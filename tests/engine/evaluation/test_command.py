import json
import sys
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import save_file

from engine.errors import ConfigurationError
from engine.evaluation import command as command_module
from engine.evaluation import evaluation as evaluation_module
from engine.evaluation.command import EvaluationCommand, run
from engine.evaluation.evaluation import GROUPS, parse_groups
from engine.evaluation.figures import Bootstrap
from engine.evaluation.subject import Subject
from tests.engine.encoders.tiny import random_image_encoder
from tests.engine.evaluation.tiny import tiny_subject, write_sets


@pytest.fixture(scope="module")
def image_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    save_file(random_image_encoder().backbone.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def subject(image_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    found = tiny_subject(has_heads=True, folder=image_weights)
    monkeypatch.setattr(command_module, "open_subject", lambda *_args, **_kwargs: found)
    monkeypatch.setattr(evaluation_module, "Bootstrap", partial(Bootstrap, num_resamples=50))
    return found


def a_command(folder: Path, **changes: object) -> EvaluationCommand:
    told = {"data": folder / "sets", "json": folder / "out" / "figures.json", "cache": folder, "decoder": "tiny"}
    return EvaluationCommand(**{**told, "weights": "none", **changes})


def run_quietly(command: EvaluationCommand) -> str:
    console = Console(file=StringIO(), width=160)
    run(command, console)
    return console.file.getvalue()


@pytest.mark.usefixtures("subject")
def test_everything_is_measured_written_and_drawn(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    write_sets(tmp_path / "train", num=5)
    printed = run_quietly(a_command(tmp_path, plots=tmp_path / "plots", words="commedia eval --data sets"))
    written = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    assert {figure["group"] for figure in written["figures"]} == set(GROUPS)
    assert {figure["set"] for figure in written["figures"]} == {"first", "second", "third"}
    for figure in written["figures"]:
        low, high = figure["ci95"]
        assert low <= figure["value"] + 1e-6
        assert figure["value"] <= high + 1e-6
        assert figure["n"] == 4
    assert written["command"] == "commedia eval --data sets"
    assert written["versions"]["sacrebleu"]
    assert written["seconds"] > 0
    assert any(figure["figure"] == "CIDEr, nearest neighbour" for figure in written["figures"])
    assert "matching accuracy, embeddings" in printed
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"matching-first.png", "recall-first.png", "personas-second.png", "dialogues-third.png"} <= plots


@pytest.mark.usefixtures("subject")
def test_only_what_is_asked_for_is_measured(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    run_quietly(a_command(tmp_path, only="personas", limit=2))
    written = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    assert {figure["group"] for figure in written["figures"]} == {"personas"}
    assert {figure["n"] for figure in written["figures"]} == {2}
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.usefixtures("subject")
def test_pictures_that_are_missing_are_listed(tmp_path: Path) -> None:
    sets = write_sets(tmp_path / "sets")
    with (sets / "first.jsonl").open("a") as rows:
        rows.write(json.dumps({"image": "gone.png", "captions": ["a ghost"]}) + "\n")
    printed = run_quietly(a_command(tmp_path, only="likelihood"))
    assert "1 pictures cannot be read and are left out (gone.png)" in printed


@pytest.mark.usefixtures("subject")
def test_sets_that_fit_nothing_asked_for_are_an_error(tmp_path: Path) -> None:
    sets = write_sets(tmp_path / "sets")
    (sets / "second.jsonl").unlink()
    with pytest.raises(ConfigurationError, match="nothing could be measured"):
        run_quietly(a_command(tmp_path, only="personas"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": "captions,colours"}, "--only colours: there is no such group; known are likelihood"),
        ({"limit": 1}, "--limit 1"),
        ({"data": Path("nowhere")}, "nowhere is no folder"),
        ({"weights": None}, "no fusion weights ship for tiny"),
        ({"weights": "nowhere"}, r"nowhere.config\.json cannot be read"),
        ({"adapter": "nowhere"}, "nowhere.* is no adapter"),
        ({"json": Path()}, "--json: .* is a folder; name a file"),
    ],
)
def test_mistakes_are_found_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(command_module, "open_subject", lambda *_args, **_kwargs: pytest.fail("something was loaded"))
    write_sets(tmp_path / "sets")
    with pytest.raises(ConfigurationError, match=message):
        run_quietly(a_command(tmp_path, **changes))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"--plots: .*name another place"):
        run_quietly(a_command(tmp_path, plots=tmp_path / "file" / "plots"))


def test_a_missing_library_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sets(tmp_path / "sets")
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigurationError, match=r"needs sacrebleu.*pip install 'commedia\[train\]'"):
        run_quietly(a_command(tmp_path))


def test_groups_come_in_one_order() -> None:
    assert parse_groups(" personas, captions") == ("captions", "personas")
    assert parse_groups("") == GROUPS
