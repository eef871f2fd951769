"""`commedia persona test` from its arguments to its exit status, on an engine that answers as it is told."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bot import cli
from bot.scoring import command_line
from bot.settings import Settings
from engine.errors import EngineError
from engine.types import GenerationRequest
from tests.bot.scoring.answering import AnsweringEngine

MIRA = """\
name: Mira
summary: A clockmaker from Ghent.
greetings: ["Good day, {{user}}."]
tests:
  facts:
    - {ask: "What is your owl called?", expect: [Hugo]}
    - {ask: "Where do you live?", expect: [Ghent]}
  thresholds: {facts: 0.75}
"""
CONFIG = """\
personas = ["cast"]
[engine]
backend = "echo"
"""
Answer = Callable[[GenerationRequest], str | EngineError]


class Stage:
    """The engines that were built, with their settings."""

    def __init__(self) -> None:
        self.answer: Answer = lambda request: "Hugo." if "owl" in request.turns[-1].text else "In Ghent."
        self.engines: list[AnsweringEngine] = []
        self.settings: list[Settings] = []

    def build(self, settings: Settings) -> AnsweringEngine:
        self.settings.append(settings)
        self.engines.append(AnsweringEngine(lambda request: self.answer(request)))
        return self.engines[-1]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.chdir(tmp_path)
    for variable in ("COMMEDIA_HOME", "COMMEDIA_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    Path("cast").mkdir()
    Path("cast/mira.yaml").write_text(MIRA)
    Path("commedia.toml").write_text(CONFIG)
    stage = Stage()
    monkeypatch.setattr(command_line, "build_engine", stage.build)
    return stage


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["commedia", "persona", "test", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.run_command_line()
        return int(ended.value.code or 0)

    return run


def test_a_good_persona_passes(stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--only", "facts", "--json", "out.json", "--replies", "out.jsonl", "--repeats", "2") == 0
    assert "1.00" in capsys.readouterr().out
    values = json.loads(Path("out.json").read_text())
    assert values["overall"]["facts"]["value"] == 1
    assert values["setup"]["num_repeats"] == 2
    assert len(Path("out.jsonl").read_text().splitlines()) == 4
    assert stage.engines[0].is_closed


def test_a_missed_threshold_fails(stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    stage.answer = lambda _: "I live in Ghent."
    assert run("mira", "--only", "facts") == 1
    assert "asks for at least 0.75" in capsys.readouterr().err


def test_a_failed_reply_fails(stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    stage.answer = lambda _: EngineError("out of coffee")
    assert run("mira", "--only", "facts", "--quick") == 1
    assert "2 replies failed: out of coffee" in capsys.readouterr().err


def test_a_threshold_without_anything_to_ask_fails(
    stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cast/mira.yaml").write_text(f"{MIRA.partition('  facts:')[0]}  thresholds: {{facts: 0.9}}\n")
    assert run("mira", "--only", "facts", "--quick") == 1
    assert "facts has no score, and its file asks for one" in " ".join(capsys.readouterr().err.split())
    assert run("mira", "--only", "safety", "--quick") == 0


def test_a_reply_that_fails_with_the_plain_prompt_fails(stage: Stage, run: Callable[..., int]) -> None:
    stage.answer = lambda request: "Hugo, Ghent." if "summary:" not in request.system_prompt else EngineError("no room")
    assert run("--only", "facts", "--against-plain", "--quick") == 1


def test_a_run_that_comes_to_nothing_leaves_no_file(
    stage: Stage, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(settings: Settings) -> AnsweringEngine:
        raise EngineError("no device")

    monkeypatch.setattr(command_line, "build_engine", build)
    assert run("--only", "facts", "--json", "out.json", "--replies", "out.jsonl") != 0
    assert not Path("out.json").exists()
    assert not Path("out.jsonl").exists()


def test_the_plain_prompt_is_run_beside(
    stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    stage.answer = lambda request: "Hugo, Ghent." if "summary:" not in request.system_prompt else "No idea."
    assert run("--only", "facts", "--against-plain", "--json", "out.json", "--quick") == 0
    assert "+1.00" in capsys.readouterr().out
    values = json.loads(Path("out.json").read_text())
    assert values["plain"]["setup"]["is_plain"] is True
    ours, plain = stage.settings
    assert (ours.engine.fusion, ours.engine.lexicon) == ("coattention", True)
    assert (plain.engine.fusion, plain.engine.lexicon) == ("none", False)


def test_parts_are_switched_off_one_by_one(stage: Stage, run: Callable[..., int]) -> None:
    run("--only", "facts", "--quick", "--without", "lexicon")
    run("--only", "facts", "--quick", "--without", "coattention")
    assert [(one.engine.fusion, one.engine.lexicon) for one in stage.settings] == [
        ("coattention", False),
        ("none", True),
    ]


def test_the_guard_is_one_of_them(stage: Stage, run: Callable[..., int]) -> None:
    stage.answer = lambda _: "As an AI language model, I cannot say."
    run("--only", "facts", "--quick", "--without", "guard")
    num_unguarded = len(stage.engines[0].requests)
    run("--only", "facts", "--quick")
    assert num_unguarded == 2
    assert len(stage.engines[1].requests) > 2


def test_what_the_configuration_switches_off_stays_off(stage: Stage, run: Callable[..., int]) -> None:
    Path("commedia.toml").write_text(f"{CONFIG}lexicon = false\n[chat]\nguard = false\n")
    stage.answer = lambda _: "As an AI language model, I cannot say."
    run("--only", "facts", "--quick")
    assert stage.settings[0].engine.lexicon is False
    assert len(stage.engines[0].requests) == 2


def test_the_guard_tries_as_often_as_it_is_configured_to(stage: Stage, run: Callable[..., int]) -> None:
    Path("commedia.toml").write_text(f"{CONFIG}[chat]\nguard_tries = 0\n")
    stage.answer = lambda _: "As an AI language model, I cannot say."
    run("--only", "facts", "--quick", "--json", "out.json")
    assert len(stage.engines[0].requests) == 2
    assert json.loads(Path("out.json").read_text())["setup"]["is_quick"] is True


def test_a_file_can_be_tested(stage: Stage, run: Callable[..., int]) -> None:
    Path("other.yaml").write_text(MIRA.replace("Mira", "Other"))
    assert run("other.yaml", "--only", "facts", "--json", "out.json", "--quick") == 0
    assert json.loads(Path("out.json").read_text())["personas"][0]["id"] == "other"


def test_an_earlier_report_shows_what_became_worse(
    stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cast/mira.yaml").write_text(
        MIRA.replace("  thresholds: {facts: 0.75}\n", "").replace(
            "  facts:\n", "  facts:\n" + '    - {ask: "Where do you live?", expect: [Ghent]}\n' * 9
        )
    )
    assert run("--only", "facts", "--json", "old.json", "--quick") == 0
    assert run("--only", "facts", "--baseline", "old.json", "--quick") == 0
    stage.answer = lambda _: "Who knows?"
    assert run("--only", "facts", "--baseline", "old.json", "--quick") == 1
    assert "worse: Mira: facts 1.00 → 0.00" in capsys.readouterr().out


def test_an_earlier_report_that_was_made_otherwise_is_no_measure(
    stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--only", "facts", "--json", "old.json", "--quick", "--without", "guard") == 0
    assert run("--only", "facts", "--baseline", "old.json", "--quick", "--without", "guard") == 0
    assert "otherwise" not in capsys.readouterr().out
    assert run("--only", "facts", "--baseline", "old.json", "--repeats", "1") == 0
    assert "made otherwise: is_quick, without" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ("nobody",),
        ("--only", "beauty"),
        ("--without", "brain"),
        ("--plain", "--against-plain"),
        ("--repeats", "0"),
        ("--json", "no/such/folder.json"),
        ("--replies", "cast"),
        ("--baseline", "commedia.toml"),
    ],
)
def test_what_is_not_meant_so_is_wrong_usage(
    arguments: tuple[str, ...], stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not stage.engines


def test_a_broken_file_is_told_with_its_place(
    stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text("name: Ann\nsumary: x\n")
    assert run("bad.yaml") == 2
    assert "bad.yaml:2:1" in capsys.readouterr().err


def test_the_judges_are_measured_without_an_engine(
    stage: Stage, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    cli_status = run_judges(run)
    assert cli_status == 0
    assert "breaks, held out" in capsys.readouterr().out
    assert json.loads(Path("judges.json").read_text())["judges"]
    assert not stage.engines


def run_judges(run: Callable[..., int]) -> int:
    return run("--judges", "--json", "judges.json")


def test_everything_is_asked_and_scored(stage: Stage, run: Callable[..., int]) -> None:
    stage.answer = lambda _: "Tick, tock, says the little clock."
    assert run("--quick", "--json", "out.json") == 1  # the facts are wrong
    scores = json.loads(Path("out.json").read_text())["personas"][0]["scores"]
    assert set(scores) == {"voice", "facts", "breaks", "grounding", "safety", "drift"}
    assert scores["breaks"]["value"] == 0
    assert scores["drift"]["num_items"] == 10
