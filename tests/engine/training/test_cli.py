import subprocess
import sys
from pathlib import Path

import pytest

from engine.training import cli
from engine.training.options import TASK_NAMES, reference

ROOT = Path(__file__).parents[3]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `python -m engine.training` in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["train", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_options_are_printed(task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "options", task) == 0
    assert capsys.readouterr().out == reference(task)  # type: ignore[arg-type]


def test_a_mistake_is_a_message_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, "fusion", "--run", str(tmp_path / "run"), "--set", "seed=x") == 1
    error = capsys.readouterr().err
    assert "seed: must be a valid integer" in error
    assert "Traceback" not in error
    assert command(monkeypatch, "options", "everything") == 1
    assert "there are fusion, captioning" in capsys.readouterr().err


def test_arguments_reach_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(cli, "train", lambda *arguments, **named: told.append((*arguments, named)))
    assert command(
        monkeypatch, "masked", "--run", "r", "--data", "a", "--data", "hf:b/c", "--exclude", "e",
        "--set", "seed=1", "--set", "num_steps=2", "--options", "o.yaml", "--cache", "c",
    ) == 0  # fmt: skip
    assert told == [
        (
            "masked",
            Path("r"),
            {
                "data": ["a", "hf:b/c"], "file": Path("o.yaml"), "changes": ["seed=1", "num_steps=2"],
                "exclude": [Path("e")], "cache": Path("c"),
            },
        )
    ]  # fmt: skip


def test_help_and_options_load_no_torch() -> None:
    code = "import sys, bot.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=90).returncode == 0
