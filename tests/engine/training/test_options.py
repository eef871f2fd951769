from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from engine.errors import ConfigurationError
from engine.training.options import (
    TASK_NAMES,
    TaskName,
    TrainingOptions,
    changed_options,
    default_options,
    read_options,
    reference,
    write_options,
)


def told(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "options.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_reference_is_yaml_with_the_defaults(task: TaskName, tmp_path: Path) -> None:
    assert read_options(task, told(tmp_path, reference(task))) == default_options(task)


def test_the_reference_describes_what_the_task_uses() -> None:
    fusion, lora, masked = (yaml.safe_load(reference(task)) for task in ("fusion", "lora", "masked"))
    assert fusion["tasks"].keys() == {"captioning", "matching", "masked", "persona"}
    assert masked["tasks"].keys() == {"masked"}
    assert "lora" not in fusion
    assert "fusion" not in lora
    assert "rank" in lora["lora"]
    lines = [line.strip() for line in reference("fusion").splitlines()]
    undescribed = [
        line for before, line in pairwise(lines) if line and not line.startswith("#") and not before.startswith("#")
    ]
    assert undescribed == []


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    options = read_options("fusion", changes=["data.roles={pets: scenes}", "tasks.matching.weight=0.2", "seed=7"])
    write_options(options, tmp_path / "options.yaml")
    assert read_options(None, tmp_path / "options.yaml") == options


def test_sections_keep_what_is_not_told(tmp_path: Path) -> None:
    options = read_options("fusion", told(tmp_path, "tasks:\n  matching:\n    weight: 0.2\n  masked:\nseed: 3\n"))
    assert options.tasks.matching.weight == 0.2
    assert options.tasks.matching.batch_size == default_options("fusion").tasks.matching.batch_size
    assert options.seed == 3


def test_a_number_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    assert read_options("fusion", told(tmp_path, "learning_rate: 5e-4")).learning_rate == 5e-4


def test_changes_come_last(tmp_path: Path) -> None:
    assert read_options("fusion", told(tmp_path, "seed: 3"), changes=["seed=4"]).seed == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 0", r"options\.yaml: learning_rate: must be greater than 0, not 0"),
        ("learning_rate: .nan", r"options\.yaml: learning_rate: must be"),
        ("learning_rat: 1", r"options\.yaml: learning_rat: there is no such option"),
        ("tasks: {matching: {weight: x}}", r"options\.yaml: tasks\.matching\.weight: must be a valid number"),
        ("fusion: {kind: magic}", r"options\.yaml: fusion\.kind: must be 'coattention', 'cross'"),
        ("fusion: {width: 30}", r"options\.yaml: fusion\.width: must be a multiple of fusion\.num_heads"),
        ("seed: [", r"options\.yaml:1:\d+: not YAML"),
        ("- seed", r"options\.yaml: must be a list of `name: value`"),
        ("task: lora", r"options\.yaml: task: these options are for lora, not for fusion"),
        ("mix: {concepts: 0, things: 0, scenes: 0}", r"options\.yaml: mix: at least one"),
        ("learning_rate: 0\nseed: x", r"(?s)seed.*\n.*learning_rate"),
    ],
)
def test_mistakes_are_told_with_file_and_option(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_options("fusion", told(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seed", "write it as name=value"),
        ("seed=[", "not YAML"),
        ("seed.x=1", "seed is a value, not a section"),
        ("num_steps=0", r"--set: num_steps: must be"),
        ("nothing.here=1", "nothing: there is no such option"),
    ],
)
def test_mistakes_in_changes_are_told(change: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_options("fusion", changes=[change])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml cannot be read"):
        read_options("fusion", tmp_path / "gone.yaml")


def test_a_run_of_one_task_leaves_the_others_out() -> None:
    assert list(default_options("masked").active_tasks()) == ["masked"]
    assert list(read_options("fusion", changes=["tasks.masked.weight=0"]).active_tasks()) == [
        "captioning", "matching", "persona",
    ]  # fmt: skip
    assert default_options("lora").active_tasks() == {}
    with pytest.raises(ConfigurationError, match="at least one weight"):
        read_options("masked", changes=["tasks.masked.weight=0"])


def test_the_pace_may_change_but_not_what_is_drawn() -> None:
    old = TrainingOptions()
    assert changed_options(old, read_options("fusion", changes=["learning_rate=0.5", "num_parts=2"])) == []
    new = read_options("fusion", changes=["seed=1", "fusion.width=64"])
    assert changed_options(old, new) == ["fusion.width", "seed"]


def test_no_fusion_is_nothing_to_train() -> None:
    with pytest.raises(ConfigurationError, match=r"fusion\.kind: must be 'coattention'"):
        read_options("fusion", changes=["fusion.kind=none"])


@pytest.mark.parametrize(("task", "option"), [("masked", "tasks.masked.batch_size"), ("lora", "lora.batch_size")])
def test_a_batch_cannot_be_cut_into_more_slices_than_it_has_samples(task: TaskName, option: str) -> None:
    assert read_options(task, changes=[f"{option}=4", "num_parts=4"]).num_parts == 4
    with pytest.raises(ConfigurationError, match=rf"num_parts: .* samples in {option}"):
        read_options(task, changes=[f"{option}=3", "num_parts=4"])
