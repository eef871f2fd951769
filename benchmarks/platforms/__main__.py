"""Messages per second, added latency, a thousand conversations at once and memory, on the fakes of both platforms.

    python -m benchmarks.platforms --json OUT [--platforms discord,telegram] [--rate 20] [--seconds 30] …

The platforms are the fakes of the tests, on loopback sockets, in this process. Each bot has a process of its own: all
of Commedia with its real store and an engine that repeats at once what it hears; the least that one can write with
discord.py or python-telegram-bot, which keeps nothing; and an echo on bare sockets, which says what the fake itself
takes. `docs/benchmarks.md` says more. Exit status 1 where a bar was missed or a message had no answer, or two.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.platforms import load
from benchmarks.platforms.bots import KINDS, Plan, serving
from benchmarks.platforms.crowds import PLATFORMS, open_crowd

MAX_P95_MS = 50.0
NUM_WARM_UP = 50


@dataclass(frozen=True, slots=True)
class Options:
    """How much of each is done."""

    platforms: tuple[str, ...] = PLATFORMS
    kinds: tuple[str, ...] = KINDS
    rate: float = 20.0
    seconds: float = 30.0
    chats: int = 100
    messages: int = 2000
    at_once: int = 1000
    memory_messages: int = 50_000
    is_apart: bool = True
    timeout_s: float = 1800.0


@dataclass(slots=True)
class Row:
    """What one bot did on one platform."""

    platform: str
    kind: str
    steady: load.Latency | None = None
    throughput: load.Throughput | None = None
    at_once: load.Latency | None = None
    memory: load.Memory | None = None
    failure: str = ""

    @property
    def problems(self) -> list[str]:
        """What of it is not as it should be. Only Commedia is held to it."""
        found = [self.failure] if self.failure else []
        if self.kind != "commedia":
            return found
        for name, latency in (("steady", self.steady), ("at once", self.at_once)):
            if latency is not None and (latency.num_lost or latency.num_doubled):
                found.append(f"{name}: {latency.num_lost} lost, {latency.num_doubled} doubled")
        if self.steady is not None and self.steady.p95_ms > MAX_P95_MS:
            found.append(f"p95 is {self.steady.p95_ms:.1f} ms, more than {MAX_P95_MS:g}")
        if self.throughput is not None and self.throughput.num_lost:
            found.append(f"{self.throughput.num_lost} lost at full speed")
        if self.memory is not None and self.memory.is_growing:
            found.append(f"memory grew by {self.memory.growth_mb:.1f} MB in the last third")
        return found


@dataclass(slots=True)
class Report:
    """All rows, and where they were measured."""

    rows: list[Row] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        return [f"{row.kind} on {row.platform}: {problem}" for row in self.rows for problem in row.problems]


async def measure(options: Options, home: Path) -> Report:
    """Measure one bot after the other; one that fails is told, and the next one goes on."""
    report = Report(about={"at": datetime.now(UTC).isoformat(), "cpus": os.cpu_count(), "on": platform.platform()})
    report.about["load_before"] = os.getloadavg()
    for where in options.platforms:
        for kind in options.kinds:
            row = Row(where, kind)
            report.rows.append(row)
            try:
                async with asyncio.timeout(options.timeout_s):
                    await _measure_one(row, options, home / f"{where}-{kind}")
            except (RuntimeError, TimeoutError) as error:
                row.failure = str(error) or f"it took longer than {options.timeout_s:g} s"
    report.about["load_after"] = os.getloadavg()
    return report


async def _measure_one(row: Row, options: Options, home: Path) -> None:
    async with open_crowd(row.platform) as crowd:
        # As it is: what the real platform would allow holds here, too.
        plan = Plan(row.kind, crowd.address, str(home))
        async with serving(plan, lambda: crowd.is_served, is_apart=options.is_apart):
            await load.flat_out(crowd, num_messages=min(NUM_WARM_UP, options.messages), num_chats=options.chats)
            row.steady = await load.steady(crowd, rate=options.rate, seconds=options.seconds, num_chats=options.chats)
    async with open_crowd(row.platform) as crowd:
        plan = Plan(row.kind, crowd.address, str(home / "unpaced"), has_pace=False)
        async with serving(plan, lambda: crowd.is_served, is_apart=options.is_apart) as bot:
            await load.flat_out(crowd, num_messages=min(NUM_WARM_UP, options.messages), num_chats=options.chats)
            row.throughput = await load.flat_out(
                crowd, num_messages=options.messages, num_chats=options.chats, cpu_s=bot.cpu_s
            )
            row.at_once = await load.all_at_once(crowd, num_chats=options.at_once)
            if row.kind == "commedia" and options.memory_messages:
                crowd.forget()
                row.memory = await load.memory(
                    crowd, bot.rss_mb, num_messages=options.memory_messages, num_chats=options.chats
                )


def print_report(report: Report, console: Console) -> None:
    """The rows as a table, and the ratios to the least that one can write."""
    table = Table(
        "platform",
        "bot",
        "p50, ms",
        "p95, ms",
        "messages/s",
        "CPU, ms each",
        "at once: p50, s",
        "p95, s",
        "memory, MB",
        "grew by",
    )
    for row in report.rows:
        table.add_row(
            row.platform,
            row.kind,
            *([f"{row.steady.p50_ms:.1f}", f"{row.steady.p95_ms:.1f}"] if row.steady else ["", ""]),
            *([f"{row.throughput.per_s:.0f}", f"{row.throughput.cpu_ms:.1f}"] if row.throughput else ["", ""]),
            *([f"{row.at_once.p50_ms / 1e3:.2f}", f"{row.at_once.p95_ms / 1e3:.2f}"] if row.at_once else ["", ""]),
            *([f"{row.memory.slices_mb[-1]:.0f}", f"{row.memory.growth_mb:+.1f}"] if row.memory else ["", ""]),
        )
    console.print(table)
    for line in ratios(report):
        console.print(line)
    for problem in report.problems:
        console.print(f"[red]{problem}[/red]")


def ratios(report: Report) -> list[str]:
    """Commedia beside the least that one can write with the same library."""
    lines = []
    by_name = {(row.platform, row.kind): row for row in report.rows}
    for where in {row.platform: None for row in report.rows}:
        ours, floor = by_name.get((where, "commedia")), by_name.get((where, "library"))
        if ours and floor and ours.steady and floor.steady and ours.throughput and floor.throughput:
            more_ms = ours.steady.p95_ms - floor.steady.p95_ms
            share = ours.throughput.per_s / floor.throughput.per_s
            lines.append(f"{where}: p95 {more_ms:+.1f} ms beside a bare echo, {share:.2f} of its messages per second")
    return lines


def main() -> int:
    """Measure what the options say."""
    usual = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.platforms", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--platforms", default=",".join(PLATFORMS))
    parser.add_argument("--bots", default=",".join(KINDS))
    for name in ("rate", "seconds", "timeout_s"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(usual, name))
    for name in ("chats", "messages", "at_once", "memory_messages"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(usual, name))
    given = parser.parse_args()
    options = Options(
        platforms=tuple(given.platforms.split(",")),
        kinds=tuple(given.bots.split(",")),
        rate=given.rate,
        seconds=given.seconds,
        chats=given.chats,
        messages=given.messages,
        at_once=given.at_once,
        memory_messages=given.memory_messages,
        timeout_s=given.timeout_s,
    )
    with tempfile.TemporaryDirectory(prefix="commedia-platforms-") as home:
        report = asyncio.run(measure(options, Path(home)))
    print_report(report, Console(width=140))
    if given.json is not None:
        given.json.write_text(json.dumps(asdict(report) | {"problems": report.problems}, indent=2), encoding="utf-8")
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
