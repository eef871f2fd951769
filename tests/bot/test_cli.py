import re
import subprocess
import sys
from pathlib import Path

import pytest

from bot import cli
from bot.app import required_models
from bot.settings import read_settings, reference
from engine.backends.echo import EchoEngine
from engine.types import Explanation, GenerationRequest, StreamShares, TokenShare


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("DISCORD_TOKEN", "TELEGRAM_TOKEN", "COMMEDIA_HOME", "COMMEDIA_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


def commedia(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and give its exit status."""
    monkeypatch.setattr("sys.argv", ["commedia", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run_command_line()
    return int(ended.value.code or 0)


def test_a_wrong_setting_is_a_message_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("commedia.toml").write_text("[web]\nprot = 1\n")
    assert commedia(monkeypatch, "persona", "list") == 1
    assert "Did you mean web.port?" in capsys.readouterr().err


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert commedia(monkeypatch, "--version") == 0
    assert re.fullmatch(r"commedia \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_settings_prints_the_reference(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert commedia(monkeypatch, "settings") == 0
    assert capsys.readouterr().out == reference()


def test_a_new_persona_is_valid_and_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert commedia(monkeypatch, "persona", "new", "Captain Blue") == 0
    assert commedia(monkeypatch, "persona", "check") == 0
    assert commedia(monkeypatch, "persona", "list") == 0
    assert "Captain Blue" in capsys.readouterr().out


def test_a_broken_persona_fails_the_check_with_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text("name: Ann\nsumary: x\n")
    assert commedia(monkeypatch, "persona", "check", "bad.yaml") == 1
    assert "bad.yaml:2:1" in capsys.readouterr().err


def test_the_database_is_upgraded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMMEDIA_HOME", str(tmp_path / "home"))
    assert commedia(monkeypatch, "db", "upgrade") == 0
    assert (tmp_path / "home" / "commedia.db").is_file()


def test_an_unwritable_home_is_a_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("COMMEDIA_HOME", "file/home")
    assert commedia(monkeypatch, "run") == 1
    assert "COMMEDIA_HOME" in capsys.readouterr().err


def test_only_the_weights_in_use_are_wanted() -> None:
    def wanted(**options: str) -> list[str]:
        environment = {f"COMMEDIA_ENGINE__{name.upper()}": value for name, value in options.items()}
        return required_models(read_settings(environment=environment))

    assert len(wanted()) == 4
    assert wanted(backend="echo") == []
    assert wanted(fusion="none") == ["smollm2-135m-instruct"]
    assert wanted(decoder="some/repository") == []
    assert "smollm2-135m-instruct" not in wanted(decoder="some/repository", fusion_weights="folder")


def test_an_unknown_persona_is_named_with_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("personas").mkdir()
    Path("personas/ann.yaml").write_text("name: Ann\nsummary: A test.\ngreetings: [Hello]\n")
    monkeypatch.setenv("COMMEDIA_ENGINE__BACKEND", "echo")
    assert commedia(monkeypatch, "chat", "--persona", "bob", "--message", "hi") == 1
    error = capsys.readouterr().err
    assert "bob" in error
    assert "Ann" in error


def test_a_question_is_answered_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("personas").mkdir()
    Path("personas/ann.yaml").write_text("name: Ann\nsummary: A test.\ngreetings: [Hello]\n")
    monkeypatch.setenv("COMMEDIA_ENGINE__BACKEND", "echo")
    assert commedia(monkeypatch, "chat", "--message", "good morning") == 0
    assert capsys.readouterr().out.count("good morning") == 1


def test_a_question_is_answered_with_its_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def explain(engine: EchoEngine, request: GenerationRequest, reply: str) -> Explanation:
        words = tuple(TokenShare(word, 0.5) for word in request.turns[-1].text.split())
        return Explanation((), (), words, (), StreamShares(0, 1, 0), f"About: {reply}", has_prefix=True)

    Path("personas").mkdir()
    Path("personas/ann.yaml").write_text("name: Ann\nsummary: A test.\ngreetings: [Hello]\n")
    monkeypatch.setenv("COMMEDIA_ENGINE__BACKEND", "echo")
    monkeypatch.setattr(EchoEngine, "explain", explain)
    assert commedia(monkeypatch, "chat", "--message", "good morning", "--why") == 0
    out = capsys.readouterr().out
    assert "Words: good, morning" in out
    assert "About: Ann heard: good morning" in out
    written = Path(out.split("Drawn in ", 1)[1].strip())
    assert written.read_bytes().startswith(b"\x89PNG")


def test_a_reply_that_cannot_be_explained_is_printed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("personas").mkdir()
    Path("personas/ann.yaml").write_text("name: Ann\nsummary: A test.\ngreetings: [Hello]\n")
    monkeypatch.setenv("COMMEDIA_ENGINE__BACKEND", "echo")
    assert commedia(monkeypatch, "chat", "--message", "good morning", "--why") == 1
    shown = capsys.readouterr()
    assert "good morning" in shown.out
    assert "engine.backend" in shown.err


def test_a_name_is_shown_as_it_is_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("personas").mkdir()
    Path("personas/ann.yaml").write_text('name: "[/b] Ann"\nsummary: "[red]hi"\ngreetings: [Hello]\n')
    assert commedia(monkeypatch, "persona", "list") == 0
    out = capsys.readouterr().out
    assert "[/b] Ann" in out
    assert "[red]hi" in out


@pytest.mark.parametrize(("is_stuck", "told"), [(True, ""), (False, "in order")])
def test_an_engine_that_was_left_behind_does_not_spoil_the_end(is_stuck: bool, told: str) -> None:
    code = f"""
import atexit, sys, threading, time
from bot import cli
from engine.thread import THREAD_NAME
atexit.register(lambda: print("in order"))
if {is_stuck}:
    threading.Thread(target=time.sleep, args=(60,), name=THREAD_NAME, daemon=True).start()
cli.app = lambda: sys.exit(3)
cli.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout.strip()) == (3, told)
