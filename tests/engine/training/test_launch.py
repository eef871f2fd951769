import json
from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.models.store import ModelStore
from engine.training import cli, launch
from engine.training.folder import RunFolder
from engine.training.options import default_options, read_options
from engine.training.run import TrainingFailed, TrainingSetup
from engine.training.tasks.base import TaskLoss
from tests.engine.training.regression import RegressionTask, Regressor, tiny_options, tiny_setup
from tests.engine.training.test_cleaning import SCENES, a_set, jsonl

CHANGES = [
    f"{name}={json.dumps(value)}"
    for name, value in tiny_options().model_dump().items()
    if value != default_options("fusion").model_dump()[name]
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data; models so small that nothing has to be fetched."""
    monkeypatch.setattr(launch, "open_setup", lambda *_, **__: tiny_setup())
    a_set(tmp_path / "data", "scenes", SCENES | {"gone.jpg": (None, "A scene that nobody ever saw.")})
    return tmp_path / "data"


def train(tmp_path: Path, data: Path | None, *changes: str, **told: object) -> None:
    sources = [str(data)] if data is not None else []
    cli.train("fusion", tmp_path / "run", data=sources, changes=[*CHANGES, *changes], cache=tmp_path / "cache", **told)  # type: ignore[arg-type]


def read(tmp_path: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((tmp_path / "run" / name).read_text())
    return found


def test_a_run_leaves_everything_that_is_to_be_known_of_it(tmp_path: Path, data: Path) -> None:
    a_set(tmp_path / "eval", "held", {"x.jpg": SCENES["3.jpg"]})
    train(tmp_path, data, exclude=[tmp_path / "eval"])
    told = read(tmp_path, "data.json")
    assert told["sources"] == [str(data)]
    assert told["exclude"] == [str(tmp_path / "eval")]
    skipped = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {row["item"] for row in skipped} == {"gone.jpg", "3.jpg"}
    environment = read(tmp_path, "environment.json")
    assert environment["device"] == "cpu"
    assert environment["steps"] == 12
    assert environment["versions"]["torch"]  # type: ignore[index]
    assert environment["elapsed_s"] > 0  # type: ignore[operator]
    assert {"loss.png", "learning_rate.png", "gauges.png", "weights", "best", "options.yaml"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_a_run_goes_on_without_being_told_its_data_and_options_again(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopping(RegressionTask):
        def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
            if step == 7:
                raise KeyboardInterrupt
            return super().loss(step, part=part, num_parts=num_parts)

    def stopping() -> TrainingSetup:
        module = Regressor()
        return tiny_setup(module, tasks=[Stopping("captioning", module)])

    monkeypatch.setattr(launch, "open_setup", lambda *_, **__: stopping())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, data)
    assert "The same command goes on" in capsys.readouterr().out
    assert (tmp_path / "run" / "loss.png").is_file()
    module = Regressor()
    monkeypatch.setattr(
        launch, "open_setup", lambda *_, **__: tiny_setup(module, tasks=[RegressionTask("captioning", module)])
    )
    cli.train("fusion", tmp_path / "run", data=[], cache=tmp_path / "cache")
    assert "Going on from step 6" in capsys.readouterr().out
    steps = [line["step"] for line in RunFolder(tmp_path / "run").read_log() if "loss" in line]
    assert steps == list(range(1, 13))


def test_other_data_needs_another_folder(tmp_path: Path, data: Path) -> None:
    train(tmp_path, data)
    jsonl(data / "more.jsonl", {"user": "hi", "witty": "Ha"}, {"user": "bye", "witty": "Ho"})
    before = read(tmp_path, "data.json")
    with pytest.raises(ConfigurationError, match="holds a run over other data"):
        train(tmp_path, data)
    assert read(tmp_path, "data.json") == before


def test_a_run_is_of_one_task(tmp_path: Path, data: Path) -> None:
    train(tmp_path, data)
    with pytest.raises(ConfigurationError, match="holds a run of fusion, not of masked"):
        cli.train("masked", tmp_path / "run", data=[str(data)], cache=tmp_path / "cache")


def test_data_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--data"):
        train(tmp_path, None)
    assert not (tmp_path / "run").exists()


def test_broken_data_is_told_before_anything_is_written(tmp_path: Path, data: Path) -> None:
    (data / "broken.jsonl").write_text('{"user": \n')
    with pytest.raises(ConfigurationError, match=r"broken\.jsonl, line 1"):
        train(tmp_path, data)
    assert not (tmp_path / "run").exists()


def test_a_failed_run_is_drawn_and_told(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Diverging(RegressionTask):
        def loss(self, step: int, *, part: int = 0, num_parts: int = 1) -> TaskLoss:
            found = super().loss(step, part=part, num_parts=num_parts)
            return TaskLoss(found.total * float("nan")) if step == 5 else found

    module = Regressor()
    setup = tiny_setup(module, tasks=[Diverging("captioning", module)])
    monkeypatch.setattr(launch, "open_setup", lambda *_, **__: setup)
    with pytest.raises(TrainingFailed, match="goes on from the last checkpoint"):
        train(tmp_path, data)
    assert (tmp_path / "run" / "loss.png").is_file()
    assert read(tmp_path, "environment.json")["steps"] == 5


def test_missing_libraries_are_told_first(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'commedia\[train\]'"):
        train(tmp_path, data)


def test_a_run_keeps_the_number_format_it_was_started_with(tmp_path: Path) -> None:
    """`auto` measures, and may find another one the second time."""
    folder = RunFolder(tmp_path)
    options = default_options("fusion")
    for precision in ("float32", "bfloat16"):
        folder.write_environment({"device": "cpu", "precision": precision})
        machine = launch.choose_machine(options.model_copy(update={"device": "cpu"}), folder)
        assert str(machine.frozen) == f"torch.{precision}"


@pytest.mark.weights
@pytest.mark.timeout(600)
def test_the_default_models_train_and_go_on(tmp_path: Path, models: ModelStore, cache_dir: Path) -> None:
    """All tasks together, for as few steps as show it."""
    a_set(tmp_path / "data", "scenes", SCENES)
    jsonl(
        tmp_path / "data" / "talk.jsonl", *[{"user": f"line {j}", "witty": f"Ha {j}", "kind": "Oh"} for j in range(4)]
    )
    sizes = [f"tasks.{name}.batch_size=2" for name in ("captioning", "matching", "masked", "persona")]
    changes = [*sizes, "fusion.width=32", "checkpoint_every=1", "validate_every=2", "num_validation_batches=1"]
    told = {"data": [str(tmp_path / "data")], "cache": cache_dir}
    cli.train("fusion", tmp_path / "run", changes=[*changes, "num_steps=2"], **told)  # type: ignore[arg-type]
    (first, second), (look,) = (
        [line for line in RunFolder(tmp_path / "run").read_log() if name in line] for name in ("loss", "held_out")
    )
    assert first["tasks"].keys() == second["tasks"].keys() == {"captioning", "matching", "masked", "persona"}
    assert look["held_out"]["loss"] > 0
    assert (tmp_path / "run" / "weights" / "config.json").is_file()


def test_a_folder_that_is_in_use_is_told_before_data_is_prepared(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "prepare_data", lambda *_, **__: pytest.fail("data was prepared"))
    with (
        RunFolder(tmp_path / "run").held(),
        pytest.raises(ConfigurationError, match="another process trains"),
    ):
        train(tmp_path, data)


def test_a_folder_that_cannot_be_made_is_told_before_data_is_prepared(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "prepare_data", lambda *_, **__: pytest.fail("data was prepared"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        cli.train("fusion", tmp_path / "file" / "run", data=[str(data)], cache=tmp_path / "cache")


def test_a_run_that_came_and_went_meanwhile_is_not_overwritten(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_setup(*_: object, **__: object) -> TrainingSetup:
        other = RunFolder(tmp_path / "run")
        other.begin(read_options("fusion", changes=CHANGES), data={"digest": "another"})
        return tiny_setup()

    monkeypatch.setattr(launch, "open_setup", open_setup)
    with pytest.raises(ConfigurationError, match="holds a run over other data"):
        train(tmp_path, data)
    assert read(tmp_path, "data.json") == {"digest": "another"}


def test_a_disk_that_is_full_says_what_to_do_and_keeps_the_checkpoint(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    log = RunFolder.log

    def log_until_full(folder: RunFolder, line: dict[str, object]) -> None:
        if line["step"] == 8:
            monkeypatch.setattr(RunFolder, "write_environment", full)
            full()
        log(folder, line)

    monkeypatch.setattr(RunFolder, "log", log_until_full)
    with pytest.raises(TrainingFailed, match=r"cannot be written at step 8 \(.*No space left.*make room"):
        train(tmp_path, data)
    assert "plots cannot be written" in capsys.readouterr().out
    checkpoint = RunFolder(tmp_path / "run").load_checkpoint()
    assert checkpoint is not None
    assert checkpoint.step == 6
