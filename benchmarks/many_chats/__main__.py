"""Many chats at once on one machine: our engine beside what people run today, same weights, same prompts.

    python -m benchmarks.many_chats --json OUT [--engines ours,openvino-genai] [--chats 1,4,8,16] [--rounds 5]

SmolLM2-135M, prompts of 630 tokens of which 231 are a persona, 64 new tokens each, greedy. Every engine runs in a
process of its own, and only one at a time: a round asks each of them for each number of chats in each condition, in
another order every time. Printed are medians of the rounds and the bars of issue 4. What is written to OUT after every
round is all that was measured until then. `docs/benchmarks.md` says how the others were installed; who is not there is
named and left out.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table as PrintedTable

from benchmarks.many_chats.engines import (
    ROOT,
    Candidate,
    EngineFailed,
    EngineProcess,
    Places,
    candidates,
    chosen,
    cpu_flags,
)
from benchmarks.many_chats.figures import Bar, Record, Row, Table, bars, rows
from benchmarks.many_chats.workload import Condition, Scene, Workload
from benchmarks.peers.http_stream import MAX_CHATS
from engine.models.store import ModelStore

NUM_NEW_TOKENS = 64
NUM_WARM_UP_CHATS = 2
CONDITIONS = {"cold": Condition.COLD, "persona": Condition.PERSONA, "conversation": Condition.CONVERSATION}

output = Console(width=140)


class Contest:
    """Engines that run, and what they did. One that fails is left out from then on, and its failure is kept."""

    def __init__(self, workload: Workload, *, num_new: int) -> None:
        self._workload = workload
        self._num_new = num_new
        self._running: list[EngineProcess] = []
        self.records: list[Record] = []
        self.failures: dict[str, str] = {}
        self.about: dict[str, dict[str, Any]] = {}

    def start(self, candidate: Candidate, stack: ExitStack, log: IO[bytes]) -> None:
        """Load it, and have it do each kind of job once: what is compiled or allocated then is not measured."""
        if missing := candidate.missing():
            self.fail(candidate.name, f"not installed: there is no {missing[0]}")
            return
        began = time.monotonic()
        process = EngineProcess(candidate, log=log)
        stack.callback(process.close)
        try:
            process.wait_until_ready()
            for condition in candidate.conditions:
                self._play(process, self._workload.scene(condition, NUM_WARM_UP_CHATS))
        except EngineFailed as error:
            self.fail(candidate.name, str(error))
            process.close()
            return
        self.about[candidate.name] = process.about
        self._running.append(process)
        output.print(f"{candidate.name}: ready after {time.monotonic() - began:.0f} s", highlight=False)

    def round(self, number: int, conditions: Sequence[Condition], chats: Sequence[int]) -> None:
        """Everybody once in every condition, another one first each time."""
        for condition in conditions:
            for num_chats in chats:
                scene = self._workload.scene(condition, num_chats)
                for process in self._in_turn(number):
                    if condition in process.candidate.conditions:
                        self._measure(process, condition, scene)

    def _in_turn(self, number: int) -> Iterator[EngineProcess]:
        for index in range(len(running := list(self._running))):
            yield running[(number + index) % len(running)]

    def _measure(self, process: EngineProcess, condition: Condition, scene: Scene) -> None:
        name = process.candidate.name
        if name in self.failures:
            return
        try:
            self.records.append(Record.of(name, condition, self._play(process, scene)))
        except EngineFailed as error:
            self.fail(name, str(error))
            process.close()

    def _play(self, process: EngineProcess, scene: Scene) -> dict[str, Any]:
        """Have the engine read what comes before, then the prompts that count."""
        if scene.before:
            process.ask([one.as_json() for one in scene.before], num_new=1, remembers=True)
        prompts = [one.as_json() for one in scene.prompts]
        return process.ask(prompts, num_new=self._num_new, remembers=bool(scene.before))

    def fail(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        output.print(f"[yellow]{name}: {reason}[/]", highlight=False)


def show(all_rows: Sequence[Row], all_bars: Sequence[Bar]) -> None:
    table = PrintedTable(
        "engine", "condition", "chats", "first token, s", "the last's, s", "tok/s each", "tok/s in all", "spread"
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for row in sorted(all_rows, key=lambda row: (list(Condition).index(row.condition), row.num_chats)):
        table.add_row(
            row.engine, row.condition, str(row.num_chats), f"{row.first_s:.2f}", f"{row.longest_first_s:.2f}",
            f"{row.each_per_s:.1f}", f"{row.total_per_s:.1f}",
            f"{row.slowest_total_per_s:.1f}-{row.fastest_total_per_s:.1f}",
        )  # fmt: skip
    output.print(table)
    marks = {True: "[green]met[/]", False: "[bold red]missed[/]", None: "[yellow]not measured[/]"}
    for bar in all_bars:
        value = "" if bar.value is None else f" {bar.value:.3f} × {bar.against}"
        sign = "at most" if bar.is_upper else "at least"
        output.print(f"{marks[bar.is_met]} {bar.text}:{value} ({sign} {bar.limit:g})", highlight=False)


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def machine() -> dict[str, Any]:
    """What it was measured on."""
    notable = ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx")
    return {
        "cpu": cpu_name(),
        "num_cores": os.cpu_count(),
        "flags": [flag for flag in cpu_flags() if flag.startswith(notable)],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(path: Path | None, contest: Contest, arguments: argparse.Namespace) -> list[Bar]:
    """All that is known until now, as JSON. Gives the bars."""
    all_rows = rows(contest.records)
    perplexity = json.loads(arguments.perplexity.read_text(encoding="utf-8")) if arguments.perplexity else None
    all_bars = bars(Table(all_rows), perplexity_ratio=perplexity and perplexity["default_ratio"])
    report = {
        "machine": machine(),
        "num_new_tokens": arguments.tokens,
        "engines": contest.about,
        "left_out": contest.failures,
        "rows": [asdict(row) for row in all_rows],
        "bars": [{**asdict(bar), "is_met": bar.is_met} for bar in all_bars],
        "perplexity": perplexity,
        "records": [asdict(record) for record in contest.records],
    }
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return all_bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument(
        "--engines", default="", help="keys, with commas; a beginning is enough; if left out, all that are fast here"
    )
    parser.add_argument("--chats", default="1,4,8,16")
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=NUM_NEW_TOKENS, help="new tokens of each reply")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None, help="of the words; new ones every time if left out")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--peers", type=Path, default=ROOT / "var" / "peers", help="where the others are installed")
    parser.add_argument("--perplexity", type=Path, help="what `benchmarks.many_chats.perplexity` has written")
    parser.add_argument("--list", action="store_true", help="say which engines are here, and end")
    arguments = parser.parse_args()
    model = ModelStore(arguments.cache).ensure("smollm2-135m-instruct").absolute()
    places = Places(model, arguments.cache.absolute(), arguments.peers.absolute(), arguments.threads)
    known = candidates(places)
    if arguments.list:
        for candidate in known:
            missing = candidate.missing()
            here = "here, measured if named" if candidate.is_extra else "here"
            output.print(f"{candidate.key:36} {f'there is no {missing[0]}' if missing else here}", highlight=False)
        return
    engines = (
        chosen(known, arguments.engines.split(",")) if arguments.engines else [one for one in known if not one.is_extra]
    )
    chats = [int(number) for number in arguments.chats.split(",")]
    if max(chats) > MAX_CHATS:
        parser.error(f"--chats: at most {MAX_CHATS}, since the servers beside us have as many places")
    conditions = [CONDITIONS[name] for name in arguments.conditions.split(",")]
    seed = arguments.seed if arguments.seed is not None else time.time_ns()
    contest = Contest(Workload(model, seed=seed), num_new=arguments.tokens)
    all_bars: list[Bar] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes are ended, too
    with ExitStack() as stack:
        log = stack.enter_context(Path(tempfile.gettempdir(), "many-chats.log").open("wb"))
        for candidate in engines:
            contest.start(candidate, stack, log)
        for number in range(arguments.rounds):
            began = time.monotonic()
            contest.round(number, conditions, chats)
            all_bars = write(arguments.json, contest, arguments)
            output.print(f"round {number + 1} of {arguments.rounds}: {time.monotonic() - began:.0f} s", highlight=False)
    show(rows(contest.records), all_bars)


if __name__ == "__main__":
    main()
