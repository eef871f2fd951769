import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="benchmarks come with a checkout only")

from benchmarks.many_chats.engines import (
    LLAMA_Q8,
    OURS,
    OURS_WITHOUT_CACHE,
    Candidate,
    EngineFailed,
    EngineProcess,
    Places,
    candidates,
    chosen,
)
from benchmarks.many_chats.figures import Record, Table, bars, rows
from benchmarks.many_chats.workload import Condition, as_turns
from engine.types import Role


def record(engine: str, condition: Condition, num_chats: int, *, total: float, first: float = 1.0) -> Record:
    return Record(engine, condition, num_chats, first, first, 10.0, total)


def test_a_record_tells_what_askers_saw() -> None:
    answer = {
        "wall_s": 2.0,
        "replies": [
            {"first_s": 0.5, "ended_s": 1.5, "num_new": 11},
            {"first_s": 1.0, "ended_s": 2.0, "num_new": 21},
        ],
    }
    assert Record.of("x", Condition.COLD, answer) == Record("x", Condition.COLD, 2, 0.75, 1.0, 15.0, 16.0)


def test_rows_are_medians_of_the_rounds() -> None:
    found = rows([record("x", Condition.COLD, 1, total=total, first=total) for total in (1.0, 9.0, 2.0)])
    assert [(row.num_rounds, row.total_per_s, row.first_s) for row in found] == [(3, 2.0, 2.0)]
    assert (found[0].slowest_total_per_s, found[0].fastest_total_per_s) == (1.0, 9.0)


def test_bars_compare_with_the_best_peer_and_never_with_ourselves() -> None:
    seen, cold = Condition.PERSONA, Condition.COLD
    table = Table(
        rows(
            [
                record(OURS, seen, 8, total=100.0, first=2.0),
                record(OURS_WITHOUT_CACHE, cold, 8, total=60.0, first=0.1),
                record(LLAMA_Q8, seen, 8, total=40.0, first=4.0),
                record("vLLM", seen, 8, total=110.0, first=3.0),
                # It keeps nothing: what it does cold counts for all conditions.
                record("transformers static float32", cold, 8, total=50.0, first=1.0),
                record("transformers static bfloat16", cold, 8, total=30.0, first=5.0),
            ]
        )
    )
    best, llama, first, static, one, talked, quality = bars(table, perplexity_ratio=1.02)
    assert (best.against, best.is_met) == ("vLLM", False)
    assert best.value == pytest.approx(100 / 110)
    assert (llama.value, llama.is_met) == (2.5, True)
    assert (first.value, first.is_met) == (2.0, False)
    assert first.against.startswith("transformers static float32")
    assert (static.value, static.is_met) == (1.2, True)
    assert one.is_met is None
    assert talked.is_met is None
    assert quality.is_met is False


def test_engines_are_chosen_by_the_beginning_of_their_key(tmp_path: Path) -> None:
    known = candidates(Places(tmp_path, tmp_path, tmp_path, 2))
    assert [one.key for one in chosen(known, ["ours"])] == ["ours"]
    assert [one.key for one in chosen(known, ["vllm", "ours-no-cache"])] == [
        "ours-no-cache",
        "vllm-float32",
        "vllm-bfloat16",
    ]
    with pytest.raises(SystemExit, match="no engine 'vlm'"):
        chosen(known, ["vlm"])
    missing = next(one for one in known if one.key == "llama.cpp-q8_0").missing()
    assert tmp_path / "gguf" / "smollm2-Q8_0.gguf" in missing


def test_turns_alternate_and_the_user_begins() -> None:
    assert [turn.role for turn in as_turns(("a", "b", "c"))] == [Role.USER, Role.ASSISTANT, Role.USER]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[EngineProcess]:
    candidate = Candidate("peer", "peer", Path(sys.executable), "tests.fakes.peer", ())
    with (tmp_path / "log").open("wb") as log:
        process = EngineProcess(candidate, log=log)
        try:
            process.wait_until_ready()
            yield process
        finally:
            process.close()


def state_of(process: EngineProcess) -> str:
    """As the kernel calls it: T is stopped."""
    status = Path(f"/proc/{process._process.pid}/stat").read_text(encoding="ascii")
    return status.rpartition(")")[2].split()[0]


def test_a_process_answers_jobs_and_stands_still_between_them(process: EngineProcess) -> None:
    assert process.about == {"version": 1}
    for _ in range(2):
        answer = process.ask([{"ids": [1]}, {"ids": [2]}], num_new=5, remembers=True)
        assert [reply["num_new"] for reply in answer["replies"]] == [5, 5]
        deadline = time.monotonic() + 5
        while (state := state_of(process)) != "T" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert state == "T"


def test_replies_that_are_too_short_are_a_failure(process: EngineProcess) -> None:
    with pytest.raises(EngineFailed, match=r"7\] tokens instead of 8"):
        process.ask([{"ids": [1]}], num_new=8, remembers=False)


def test_what_fails_in_the_process_is_told(process: EngineProcess) -> None:
    with pytest.raises(EngineFailed, match="99 is too many"):
        process.ask([{"ids": [1]}], num_new=99, remembers=False)
    with pytest.raises(EngineFailed, match="died"):
        process.ask([{"ids": [1]}], num_new=1, remembers=False)


def test_records_can_be_written() -> None:
    assert json.loads(json.dumps(Condition.PERSONA)) == "persona seen"
