"""The load bench of the platforms, tiny: it measures, counts right, and says what is wrong."""

import json
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("benchmarks", reason="benchmarks come with a checkout only")

from benchmarks.platforms.__main__ import Options, Report, Row, measure, print_report, ratios
from benchmarks.platforms.crowds import Ledger
from benchmarks.platforms.load import Latency, Throughput, judged, quantile
from tests.bot.adapters.discord.harness import library_put_back

TINY = Options(rate=50, seconds=0.2, chats=16, messages=6, at_once=4, memory_messages=15, is_apart=False, timeout_s=30)


@pytest.mark.parametrize("platform", ["discord", "telegram"])
async def test_every_bot_is_measured(platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.platforms.__main__.MAX_P95_MS", 10_000)  # this machine may be busy
    with library_put_back():
        report = await measure(Options(**vars_of(TINY) | {"platforms": (platform,)}), tmp_path)
    assert report.problems == []
    assert [row.kind for row in report.rows] == ["wire", "library", "commedia"]
    for row in report.rows:
        assert row.steady.num_messages == 10
        assert row.steady.num_lost == row.steady.num_doubled == row.at_once.num_lost == row.throughput.num_lost == 0
        assert 0 < row.steady.p50_ms <= row.steady.p95_ms <= row.steady.max_ms
    assert len(report.rows[-1].memory.slices_mb) == 15
    console = Console(width=140, record=True)
    print_report(report, console)
    assert "of its messages per second" in console.export_text()


def vars_of(options: Options) -> dict[str, object]:
    return {name: getattr(options, name) for name in Options.__dataclass_fields__}


async def test_a_bot_that_does_not_start_is_told_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(plan: object) -> None:
        raise OSError("no")

    monkeypatch.setitem(__import__("benchmarks.platforms.bots").platforms.bots._RUNNERS, ("library", "telegram"), fail)
    options = Options(**vars_of(TINY) | {"platforms": ("telegram",), "kinds": ("library", "wire")})
    report = await measure(options, tmp_path)
    assert [bool(row.failure) for row in report.rows] == [True, False]
    assert report.problems[0].startswith("library on telegram: a bot ended before it had connected")


def latency(**changes: float) -> Latency:
    return Latency(
        **{"num_messages": 10, "p50_ms": 5, "p95_ms": 9, "max_ms": 10, "num_lost": 0, "num_doubled": 0} | changes
    )


def test_what_misses_a_bar_is_a_problem() -> None:
    assert Row("discord", "commedia", latency(), Throughput(10, 99, 0), latency()).problems == []
    for row in (
        Row("discord", "commedia", latency(p95_ms=50.1)),
        Row("discord", "commedia", latency(num_lost=1)),
        Row("discord", "commedia", at_once=latency(num_doubled=1)),
        Row("discord", "commedia", throughput=Throughput(10, 99, 1)),
        Row("discord", "commedia", memory=judged([100.0] * 10 + [120.0] * 5, num_messages=10, seconds=1)),
        Row("discord", "library", failure="it broke"),
    ):
        assert len(row.problems) == 1
    assert Row("discord", "library", latency(p95_ms=99)).problems == []


def test_memory_that_fills_early_is_no_growth() -> None:
    assert not judged([50.0, 90.0, *[100.0] * 13], num_messages=10, seconds=1).is_growing
    assert judged([100.0] * 10 + [117.0] * 5, num_messages=10, seconds=1).is_growing


def test_the_ratio_is_to_the_floor() -> None:
    rows = [
        Row("discord", "library", latency(p95_ms=4), Throughput(10, 200, 0)),
        Row("discord", "commedia", latency(p95_ms=9), Throughput(10, 50, 0)),
    ]
    assert ratios(Report(rows)) == ["discord: p95 +5.0 ms beside a bare echo, 0.25 of its messages per second"]


def test_quantiles() -> None:
    assert quantile([], 0.5) == 0
    assert quantile([1, 2, 3, 4], 0.5) == 3
    assert quantile([float(number) for number in range(100)], 0.95) == 95


async def test_a_ledger_counts_the_messages_that_answer() -> None:
    ledger = Ledger()
    first, second = ledger.write(0), ledger.write(0)
    ledger.shown("1", f"You said: {first.mark}")
    assert await ledger.answer_to(first, timeout_s=1)
    assert not await ledger.answer_to(second, timeout_s=0.01)
    ledger.shown("2", f"Again {first.mark}")
    assert ledger.answers[first.mark] == {"1", "2"}
    ledger.shown("2", f"No, {second.mark}")
    assert ledger.answers == {first.mark: {"1"}, second.mark: {"2"}}
    ledger.gone("1")
    assert not ledger.answers[first.mark]
    assert json.dumps(ledger.latencies)
