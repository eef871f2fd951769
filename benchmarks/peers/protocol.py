"""How `benchmarks.many_chats` and an engine in a process of its own talk: one JSON object a line, over pipes.

Owns reading jobs, writing answers and telling failures. Knows no engine and nothing outside the standard library.

A job is `{"prompts": [{"ids": [...], ...}, ...], "num_new": 64, "remembers": true}`: all prompts are asked at once, and
each gets exactly `num_new` greedy tokens, whatever ends a turn. The answer tells for each prompt the seconds from the
beginning of the job to its first and its last token. "remembers" allows the engine to use what it has read before.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO


@dataclass(slots=True)
class Timing:
    """One reply: seconds since its job began, and how many tokens it has."""

    first_s: float | None = None
    ended_s: float | None = None
    num_new: int = 0

    def count(self, since: float, num_tokens: int = 1) -> None:
        """Note that `num_tokens` more have come just now."""
        self.ended_s = time.perf_counter() - since
        self.first_s = self.ended_s if self.first_s is None else self.first_s
        self.num_new += num_tokens


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of an engine. A prompt is a mapping with its token ids at "ids"."""

    prompts: tuple[dict[str, Any], ...]
    num_new: int
    remembers: bool

    @property
    def ids(self) -> list[list[int]]:
        """Each prompt's token ids."""
        return [prompt["ids"] for prompt in self.prompts]


Run = Callable[[Job], Sequence[Timing]]


def end_with_parent() -> None:
    """On Linux: be killed once the parent has ended, however it did; a stopped process would stay for ever."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def serve(load: Callable[[], tuple[Run, dict[str, Any]]]) -> None:
    """Load an engine, say so with what is worth knowing of it, and do jobs until the pipe closes."""
    end_with_parent()
    answers = _own_stdout()
    try:
        run, about = load()
        _say(answers, {"ready": True, "about": about})
        for line in sys.stdin:
            job = json.loads(line)
            _say(answers, _answer(run, Job(tuple(job["prompts"]), job["num_new"], job["remembers"])))
    except Exception as error:  # noqa: BLE001 - the boundary of the process: the one who measures is told
        traceback.print_exc()
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def _answer(run: Run, job: Job) -> dict[str, Any]:
    started = time.perf_counter()
    timings = run(job)
    wall_s = time.perf_counter() - started
    short = [timing.num_new for timing in timings if timing.num_new != job.num_new]
    if short:
        return {"error": f"{len(short)} replies have {short[:4]} tokens instead of {job.num_new}"}
    return {"wall_s": wall_s, "replies": [asdict(timing) for timing in timings]}


def _own_stdout() -> TextIO:
    """The pipe to the one who measures; what a library prints goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()
