import json
from pathlib import Path

import pytest
import torch

from engine.errors import ConfigurationError
from engine.training.folder import Checkpoint, RunFolder
from engine.training.options import default_options, read_options

OPTIONS = default_options("fusion")


def a_checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((2,), float(step))}, {"0.exp_avg": torch.zeros(2)}, {"elapsed_s": 1.5})


def begun(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.begin(OPTIONS, data={"digest": "d"}, skipped=[{"set": "pets", "item": "a.jpg", "reason": "gone"}])
    return folder


def test_what_was_begun_is_known(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    assert folder.known_options() == OPTIONS
    assert folder.data() == {"digest": "d"}
    assert json.loads((tmp_path / "run" / "skipped.jsonl").read_text())["item"] == "a.jpg"
    folder.check(OPTIONS, data_digest="d")


def test_a_new_folder_holds_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.known_options() is None
    assert folder.load_checkpoint() is None
    folder.check(OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Ann")
    with pytest.raises(ConfigurationError, match="something else than a run"):
        RunFolder(tmp_path).check(OPTIONS)
    with pytest.raises(ConfigurationError, match="something else than a run"):
        RunFolder(tmp_path / "letter.txt").check(OPTIONS)


def test_other_options_and_other_data_are_refused(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"other options \(seed\)"):
        folder.check(read_options("fusion", changes=["seed=1"]))
    with pytest.raises(ConfigurationError, match="other data"):
        folder.check(OPTIONS, data_digest="e")


def test_options_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    with folder.options_file.open("a") as file:
        file.write("invented_later: 1\n")
    with pytest.raises(ConfigurationError, match=r"cannot be gone on with.*invented_later"):
        folder.check(OPTIONS)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    folder.save_checkpoint(a_checkpoint(3))
    folder.save_checkpoint(a_checkpoint(6))
    found = folder.load_checkpoint()
    assert found is not None
    assert found.step == 6
    assert found.model["w"].tolist() == [6.0, 6.0]
    assert found.optimizer.keys() == {"0.exp_avg"}
    assert found.state == {"elapsed_s": 1.5}


def test_a_kill_while_a_checkpoint_is_swapped_loses_at_most_that_one(tmp_path: Path) -> None:
    path = tmp_path / "run"
    folder = begun(path)
    folder.save_checkpoint(a_checkpoint(3))
    (path / "checkpoint.new").mkdir()
    (path / "checkpoint.new" / "model.safetensors").write_bytes(b"half")  # killed while it was written
    assert folder.load_checkpoint().step == 3  # type: ignore[union-attr]
    folder.save_checkpoint(a_checkpoint(6))
    (path / "checkpoint").rename(path / "checkpoint.new")  # killed before it was renamed
    assert folder.load_checkpoint().step == 6  # type: ignore[union-attr]
    folder.save_checkpoint(a_checkpoint(9))
    assert folder.load_checkpoint().step == 9  # type: ignore[union-attr]
    assert sorted(one.name for one in path.iterdir() if one.is_dir()) == ["checkpoint"]


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    folder.save_checkpoint(a_checkpoint(3))
    state = tmp_path / "run" / "checkpoint" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format_version": 2}))
    with pytest.raises(ConfigurationError, match="has format 2, this version of Commedia reads 1"):
        folder.check(OPTIONS)


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_refused_with_a_remedy(tmp_path: Path, name: str) -> None:
    folder = begun(tmp_path / "run")
    folder.save_checkpoint(a_checkpoint(3))
    file = tmp_path / "run" / "checkpoint" / name
    file.write_bytes(file.read_bytes()[:9])
    with pytest.raises(ConfigurationError, match="damaged; remove that folder"):
        folder.check(OPTIONS)


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    for step in (1, 2, 3, 4):
        folder.log({"step": step, "loss": 0.5})
    with (tmp_path / "run" / "log.jsonl").open("ab") as log:
        log.write(b'{"step": 5, "loss": 0.\xff')
    assert [line["step"] for line in folder.read_log()] == [1, 2, 3, 4]
    folder.mend_log(last_step=3)
    folder.log({"step": 4, "loss": 0.25})
    text = (tmp_path / "run" / "log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 2, 3, 4]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    with (
        folder.held(),
        pytest.raises(ConfigurationError, match="another process"),
        RunFolder(tmp_path / "run").held(),
    ):
        pass
    with folder.held():
        pass
