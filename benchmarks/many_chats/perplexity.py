"""What each precision costs in quality: perplexity of the same text, ours and the others'.

    python -m benchmarks.many_chats.perplexity --json OUT [--peers FOLDER] [--text FILE ...]

Ours is read token by token through the very runtime that computes replies, all passages side by side, so that the
KV cache's format counts as well. OpenVINO GenAI echoes the same passages. llama.cpp has a tool of its own, with other
windows: its quantised files are compared with its own F16. `benchmarks.many_chats --perplexity OUT` takes the result.
"""

import argparse
import gc
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.many_chats.engines import ROOT, Places
from engine.backends.local import build
from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.generation.blocks import Lane
from engine.models.store import ModelStore
from engine.runtime.types import Runtime, Span

NUM_PASSAGES, PASSAGE_TOKENS = 16, 256
LLAMA_CONTEXT = 512
TOOL_TIMEOUT_S = 600
REFERENCE, DEFAULT = "ours: torch float32", "ours: by default"
OURS: dict[str, dict[str, Any]] = {
    REFERENCE: {"runtime": "torch", "dtype": "float32", "weights": "full"},
    DEFAULT: {},
    "ours: torch bfloat16": {"runtime": "torch", "dtype": "bfloat16", "weights": "full"},
    "ours: openvino float32": {"runtime": "openvino", "dtype": "float32", "weights": "full"},
    "ours: openvino float32, int8 weights": {"runtime": "openvino", "dtype": "float32", "weights": "int8"},
    "ours: openvino bfloat16": {"runtime": "openvino", "dtype": "bfloat16", "weights": "full"},
    "ours: openvino bfloat16, int8 weights": {"runtime": "openvino", "dtype": "bfloat16", "weights": "int8"},
}


@dataclass(frozen=True, slots=True)
class Score:
    """`ratio` is to the same reader's full precision."""

    name: str
    perplexity: float
    ratio: float


@torch.inference_mode()
def perplexity(runtime: Runtime, language_model: LanguageModel, passages: Sequence[Sequence[int]]) -> float:
    """Of `passages`, all equally long, each read token by token beside the others. Needs a runtime that packs."""
    ids = torch.tensor([list(passage) for passage in passages])
    num_blocks = -(-ids.shape[1] // runtime.block_size)
    lanes = [Lane([], list(range(row * num_blocks, (row + 1) * num_blocks))) for row in range(len(ids))]
    lost = []
    for position in range(ids.shape[1] - 1):
        embeddings = language_model.embed(ids[:, position])
        spans = [Span(lane, position, one[None], True) for lane, one in zip(lanes, embeddings, strict=True)]
        chances = runtime.run(spans).float().log_softmax(-1)
        lost.append(-chances.gather(1, ids[:, position + 1 : position + 2]))
    return float(torch.cat(lost).mean().exp())


def score_ours(cache: Path, threads: int, passages: Sequence[Sequence[int]]) -> Iterator[Score]:
    reference: float | None = None
    for name, options in OURS.items():
        config = EngineConfig(
            cache_dir=cache, device="cpu", decoder_adapter="none", fusion="none", num_threads=threads, **options
        )
        loop = build(config)
        value = perplexity(loop.runtime, loop.language_model, passages)
        device = loop.load().device
        reference = reference or value
        del loop
        gc.collect()
        yield Score(f"{name} ({device})" if name == DEFAULT else name, value, value / reference)


def score_openvino_genai(places: Places, passages: Sequence[Sequence[int]], reference: float) -> Iterator[Score]:
    python = places.peers / "ov/bin/python"
    if not python.exists():
        print(f"OpenVINO GenAI is not scored: there is no {python}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "passages.json"
        path.write_text(json.dumps([list(passage) for passage in passages]), encoding="utf-8")
        for precision in ("bf16", "f32"):
            command = [str(python), "-m", "benchmarks.peers.openvino_genai", "--gguf", str(places.gguf("f16"))]
            command += ["--precision", precision, "--score", str(path)]
            said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True)
            value = json.loads(said.stdout.splitlines()[-1])["perplexity"]
            yield Score(f"OpenVINO GenAI F16 {precision}", value, value / reference)


def score_llama(places: Places, text: str) -> Iterator[Score]:
    tool = places.peers / "llama/build/bin/llama-perplexity"
    if not tool.exists():
        print(f"llama.cpp is not scored: there is no {tool}")
        return
    full: float | None = None
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        for kind in ("f16", "Q8_0", "Q4_1"):
            command = [str(tool), "-m", str(places.gguf(kind)), "-f", file.name, "-c", str(LLAMA_CONTEXT)]
            command += ["-t", str(places.num_threads)]
            said = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True)
            found = re.search(r"Final estimate: PPL = ([\d.]+)", said.stdout + said.stderr)
            if found is None:
                raise RuntimeError(f"llama-perplexity says no figure: {said.stderr[-300:]}")
            value = float(found[1])
            full = full or value
            yield Score(f"llama.cpp {kind}, its own windows", value, value / full)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--peers", type=Path, default=ROOT / "var" / "peers")
    parser.add_argument(
        "--text", type=Path, nargs="*", help="files to read; this repository's documentation if left out"
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    model = ModelStore(arguments.cache).ensure("smollm2-135m-instruct").absolute()
    places = Places(model, arguments.cache.absolute(), arguments.peers.absolute(), arguments.threads)
    files = arguments.text or [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    passages = _passages(model, text)
    scores: list[Score] = []

    def note(score: Score) -> None:
        scores.append(score)
        print(f"{score.name:60} {score.perplexity:8.3f} {score.ratio:8.4f}", flush=True)

    for score in score_ours(places.cache, places.num_threads, passages):
        note(score)
    for score in (*score_openvino_genai(places, passages, scores[0].perplexity), *score_llama(places, text)):
        note(score)
    default = next(score for score in scores if score.name.startswith(DEFAULT))
    report = {
        "num_tokens": len(passages) * (PASSAGE_TOKENS - 1),
        "perplexity": {score.name: score.perplexity for score in scores},
        "ratio": {score.name: score.ratio for score in scores},
        "default_ratio": default.ratio,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _passages(model: Path, text: str) -> list[list[int]]:
    """From all over the text, `NUM_PASSAGES` of `PASSAGE_TOKENS` tokens."""
    from engine.decoder.language_model import load_tokenizer

    ids = load_tokenizer(model)(text, add_special_tokens=False)["input_ids"]
    if len(ids) < NUM_PASSAGES * PASSAGE_TOKENS:
        raise SystemExit(f"the text has {len(ids)} tokens: {NUM_PASSAGES * PASSAGE_TOKENS} are needed")
    step = len(ids) // NUM_PASSAGES
    return [ids[start : start + PASSAGE_TOKENS] for start in range(0, NUM_PASSAGES * step, step)]


if __name__ == "__main__":
    main()
