import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from bot import cli
from bot.bench import BenchOptions, Spread, measure, rounds, show
from engine.errors import DeviceError, EngineBusy, EngineError
from engine.types import EngineLoad, FinishReason, GenerationRequest, ReplyChunk, ReplyStats, SamplingSettings
from tests.fakes.engine import ScriptedEngine
from tests.fakes.personas import a_persona

PERSONAS = (a_persona("Ann"), a_persona("Bob"))


@dataclass
class CountingEngine(ScriptedEngine):
    """Says two words a reply, and tells what it cost: prompts are as long as their texts, and whatever has been read
    before, of this asker's last prompt, was in the cache."""

    refused: frozenset[str] = frozenset()
    known: dict[str, int] = field(default_factory=dict)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        asker = request.asker.conversation if request.asker else ""
        if asker in self.refused:
            raise EngineBusy("no place for you")
        self.requests.append(request)
        yield ReplyChunk("Hello ")
        await asyncio.sleep(0.002)
        num_tokens = sum(len(turn.text) for turn in request.turns)
        cached, self.known[asker] = self.known.get(asker, 0), num_tokens
        stats = ReplyStats(num_tokens, 2, 0.001, 0.002, num_cached_tokens=cached, queue_s=0.5)
        yield ReplyChunk("there.", FinishReason.STOP, stats)

    def load(self) -> EngineLoad:
        return EngineLoad(device="test")


async def test_every_chat_says_its_lines_and_goes_on_from_the_reply() -> None:
    engine = CountingEngine()
    told: list[None] = []
    report = await measure(
        engine,
        PERSONAS,
        BenchOptions(num_chats=3, num_rounds=2, num_new_tokens=5),
        sampling=SamplingSettings(),
        on_reply=lambda: told.append(None),
    )
    measured = [request for request in engine.requests if request.asker is not None]
    assert len(report.replies) == len(measured) == len(told) == 6
    assert {request.sampling.max_new_tokens for request in measured} == {5}
    assert {reply.persona for reply in report.replies} == {"ann", "bob"}
    assert len({request.asker.user for request in measured if request.asker}) == 3
    later = [request for request in measured if len(request.turns) == 3]
    assert [request.turns[1].text for request in later] == ["Hello there."] * 3
    assert not report.failures
    assert report.device == "test"


async def test_the_figures_are_told_by_message() -> None:
    report = await measure(
        CountingEngine(), PERSONAS, BenchOptions(num_chats=4, num_rounds=3), sampling=SamplingSettings()
    )
    first, second, third, together = rounds(report.replies)
    assert (first.name, first.num_replies, first.cache_hits) == ("message 1", 4, 0.0)
    assert second.cache_hits is not None
    assert 0 < second.cache_hits < 1
    assert third.num_prompt_tokens > second.num_prompt_tokens > first.num_prompt_tokens
    assert (together.name, together.num_replies) == ("all", 12)
    assert together.queue_s == Spread(0.5, 0.5)
    assert together.cache_hits == report.cache_hits
    assert report.tokens_per_s == pytest.approx(24 / report.wall_s)
    assert together.first_text_s is not None
    assert together.first_text_s.p95 <= report.wall_s


async def test_a_chat_that_fails_ends_and_the_others_go_on() -> None:
    engine = CountingEngine(refused=frozenset({"bench 1"}))
    report = await measure(engine, PERSONAS, BenchOptions(num_chats=3, num_rounds=2), sampling=SamplingSettings())
    assert [(failure.chat, failure.round, failure.reason) for failure in report.failures] == [
        (1, 0, "no place for you")
    ]
    assert {reply.chat for reply in report.replies} == {0, 2}
    assert len(report.replies) == 4


async def test_an_engine_that_answers_nothing_is_an_error_before_anything_is_measured() -> None:
    engine = ScriptedEngine(lambda _: (DeviceError("no device"),))
    with pytest.raises(EngineError, match="no device"):
        await measure(engine, PERSONAS, BenchOptions(), sampling=SamplingSettings())
    assert len(engine.requests) == 1


async def test_an_engine_without_figures_is_shown_with_gaps() -> None:
    report = await measure(
        ScriptedEngine(), PERSONAS, BenchOptions(num_chats=2, num_rounds=1), sampling=SamplingSettings()
    )
    assert report.cache_hits is None
    printed = io.StringIO()
    Console(width=80, file=printed).print(show(report))
    assert printed.getvalue().splitlines()[-1].split() == [
        "message",
        "1",
        "2",
        "0.00",
        "0.00",
        "0.00",
        "0.00",
        "-",
        "0",
        "-",
    ]


def test_of_hundred_values_95_stay_below() -> None:
    assert Spread.of(range(1, 101)) == Spread(50.5, 95)
    assert Spread.of([3.0]) == Spread(3.0, 3.0)
    assert Spread.of([]) is None


@pytest.fixture
def _rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMMEDIA_ENGINE__BACKEND", "echo")
    monkeypatch.setenv("COMMEDIA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COMMEDIA_CONFIG", raising=False)


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["commedia", "bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run_command_line()
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("_rehearsal")
def test_the_command_prints_a_table_and_writes_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, "--chats", "3", "--rounds", "2", "--tokens", "3", "--json", "figures.json") == 0
    printed = capsys.readouterr().out
    assert "3 chats at once" in printed
    assert "message 2" in printed
    written = json.loads(Path("figures.json").read_text(encoding="utf-8"))
    assert len(written["replies"]) == 6
    assert [figures["name"] for figures in written["rounds"]] == ["message 1", "message 2", "all"]
    assert written["options"] == {"num_chats": 3, "num_rounds": 2, "num_new_tokens": 3}


@pytest.mark.usefixtures("_rehearsal")
def test_chats_that_fail_are_counted_and_the_status_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = CountingEngine(refused=frozenset({"bench 0", "bench 1"}))
    monkeypatch.setattr("bot.app.build_engine", lambda _: engine)
    assert bench(monkeypatch, "--chats", "3", "--rounds", "1") == 1
    captured = capsys.readouterr()
    assert "2 chats failed: no place for you" in captured.err
    assert "message 1" in captured.out


@pytest.mark.usefixtures("_rehearsal")
def test_an_engine_that_is_not_installed_is_told_before_its_weights_are_brought(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMMEDIA_ENGINE__BACKEND", "ray")
    monkeypatch.setattr("bot.app.importlib.util.find_spec", lambda _: None)
    assert bench(monkeypatch, "--chats", "1") == 1
    told = capsys.readouterr().err
    assert "commedia[ray]" in told
    assert "Bringing weights" not in told


@pytest.mark.usefixtures("_rehearsal")
def test_a_file_that_cannot_be_written_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, "--chats", "1", "--rounds", "1", "--tokens", "1", "--json", "no/such/folder.json") == 1
    assert "Name another file" in capsys.readouterr().err
