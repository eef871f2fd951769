"""Engines in processes of their own: what is there to be measured, how each is started, and asking one of them.

Owns the processes. Only the one that is asked runs; the others are stopped by signal, so that none of them spins. Knows
neither prompts nor figures.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.many_chats.workload import Condition

ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT_S = 600.0
JOB_TIMEOUT_S = 600.0
OURS = "ours"
OURS_WITHOUT_CACHE = "ours, no prefix cache"
LLAMA_Q8 = "llama.cpp Q8_0"
STATIC = "transformers static"


class EngineFailed(Exception):
    """An engine did not start, died, hung, or said that it cannot do what was asked."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are on this machine: `model` is a folder with safetensors, the others were installed by hand."""

    model: Path
    cache: Path
    peers: Path
    num_threads: int

    def gguf(self, kind: str) -> Path:
        return self.peers / "gguf" / f"smollm2-{kind}.gguf"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that may be measured. What it `needs` has to be there; `key` is how the command line calls it.

    An engine that keeps nothing between two jobs is asked cold prompts only: it would take as long for the others.
    An `is_extra` one is measured only when it is named: on this machine it is slower than its twin of another format.
    """

    key: str
    name: str
    python: Path
    module: str
    arguments: tuple[str, ...]
    needs: tuple[Path, ...] = ()
    remembers: bool = True
    is_extra: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(Condition) if self.remembers else (Condition.COLD,)

    def missing(self) -> list[Path]:
        """What would have to be installed first."""
        return [path for path in (self.python, *self.needs) if not path.exists()]


def candidates(places: Places) -> list[Candidate]:
    """All that this benchmark knows, ours first."""
    here = Path(sys.executable)
    threads = ("--threads", str(places.num_threads))
    ours = ("--cache", str(places.cache), *threads)
    model = ("--model", str(places.model), *threads)
    # Where more than one engine uses OpenMP, threads that wait must not spin; a spinning team also starves its own
    # process's other threads on two cores.
    passive = {"OMP_NUM_THREADS": str(places.num_threads), "OMP_WAIT_POLICY": "PASSIVE"}
    ov = places.peers / "ov/bin/python"
    vllm = places.peers / "vllm/bin/python"
    llama = places.peers / "llama/build/bin/llama-server"
    f16 = places.gguf("f16")
    slower = "float32" if multiplies_bfloat16() else "bfloat16"
    return [
        Candidate("ours", OURS, here, "benchmarks.many_chats.ours", ours, environment=passive),
        Candidate(
            "ours-no-cache", OURS_WITHOUT_CACHE, here, "benchmarks.many_chats.ours", (*ours, "--no-prefix-cache"),
            remembers=False, environment=passive,
        ),
        Candidate(
            "openvino-genai", "OpenVINO GenAI F16", ov, "benchmarks.peers.openvino_genai",
            ("--gguf", str(f16), *threads), (f16,),
        ),
        Candidate(
            "openvino-genai-f32", "OpenVINO GenAI F16, computed in f32", ov, "benchmarks.peers.openvino_genai",
            ("--gguf", str(f16), "--precision", "f32", *threads), (f16,), is_extra=True,
        ),
        *(
            Candidate(
                f"llama.cpp-{kind.lower()}", f"llama.cpp {kind}", here, "benchmarks.peers.llama_server",
                ("--binary", str(llama), "--gguf", str(places.gguf(kind)), *threads), (llama, places.gguf(kind)),
            )
            for kind in ("Q8_0", "Q4_1")
        ),
        *(
            Candidate(
                f"transformers-static-{dtype}", f"{STATIC} {dtype}", here, "benchmarks.peers.transformers_static",
                (*model, "--dtype", dtype), remembers=False, environment=passive,
            )
            for dtype in ("float32", "bfloat16")
        ),
        *(
            Candidate(
                f"transformers-continuous-{dtype}", f"transformers continuous {dtype}", here,
                "benchmarks.peers.transformers_continuous", (*model, "--dtype", dtype), is_extra=dtype == slower,
                environment=passive,
            )
            for dtype in ("float32", "bfloat16")
        ),
        *(
            Candidate(
                f"vllm-{dtype}", f"vLLM {dtype}", vllm, "benchmarks.peers.vllm_server", (*model, "--dtype", dtype),
                is_extra=dtype == slower,
            )
            for dtype in ("float32", "bfloat16")
        ),
    ]  # fmt: skip


def multiplies_bfloat16() -> bool:
    """Whether this CPU does so in hardware; elsewhere float32 is several times as fast."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu_flags())


def cpu_flags() -> list[str]:
    """As the kernel names them; none where it does not say."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])


def chosen(known: Iterable[Candidate], keys: Sequence[str]) -> list[Candidate]:
    """Those whose key begins with one of `keys`, so that "vllm" is all of vLLM; "ours" alone is only ours."""
    known = list(known)
    exact = {candidate.key for candidate in known}
    for key in keys:
        if not any(candidate.key.startswith(key) for candidate in known):
            raise SystemExit(f"there is no engine {key!r}: choose of {', '.join(sorted(exact))}")

    def is_meant(candidate: Candidate) -> bool:
        return any(candidate.key == key if key in exact else candidate.key.startswith(key) for key in keys)

    return [candidate for candidate in known if is_meant(candidate)]


def _environment(candidate: Candidate) -> dict[str, str]:
    """What this shell says about OpenMP is for this shell: each engine has its own best."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "GOMP_"))}
    return {**inherited, **candidate.environment}


class EngineProcess:
    """A candidate that was started. Between two jobs it is stopped; `close` ends it with all that it started."""

    def __init__(self, candidate: Candidate, *, log: IO[bytes]) -> None:
        self.candidate = candidate
        self.about: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [str(candidate.python), "-m", candidate.module, *candidate.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=_environment(candidate),
            text=True,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        """Raises `EngineFailed`."""
        self.about = self._answer(START_TIMEOUT_S)["about"]
        self._signal(signal.SIGSTOP)

    def ask(self, prompts: Sequence[Mapping[str, Any]], *, num_new: int, remembers: bool) -> dict[str, Any]:
        """Do one job. Raises `EngineFailed`."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            job = {"prompts": list(prompts), "num_new": num_new, "remembers": remembers}
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            return self._answer(JOB_TIMEOUT_S)
        except OSError as error:
            raise EngineFailed("its process has died") from error
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process and its children."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._signal(signal.SIGKILL)
        self._process.wait(5)
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # a job that it did not take is still in there
                    pipe.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise EngineFailed(f"no answer for {timeout_s:.0f} s") from None
        if line is None:
            raise EngineFailed("its process has died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineFailed(answer["error"])
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
