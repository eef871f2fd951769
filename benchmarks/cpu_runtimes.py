"""Ways to compute the default decoder on this CPU: how fast is a step, and what does the format cost in quality?

    python -m benchmarks.cpu_runtimes --json OUT [--rounds 7] [--only openvino]

A step is one token for 1 or 8 chats of 650 positions each, or a chunk of 256 positions of one prompt. All candidates
are asked in turns within each round; printed are medians, and each as a ratio to float32 by torch. Quality is the
perplexity of a text that is read token by token through the very runtime, sixteen passages side by side.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from engine.decoder.language_model import LanguageModel, load_model, load_tokenizer
from engine.decoder.packing import can_pack, pack_linear_layers
from engine.generation.blocks import Lane
from engine.models.store import ModelStore
from engine.runtime.openvino_export import export
from engine.runtime.openvino_paged import OpenVINORuntime
from engine.runtime.paged import BLOCK_SIZE, PagedRuntime
from engine.runtime.types import Runtime, Span

ROOT = Path(__file__).parent.parent
DECODER = "smollm2-135m-instruct"
NUM_BLOCKS = 400
CONTEXT = 650
CHUNK = 256
PASSAGES, PASSAGE_TOKENS = 16, 192
SHAPES = {"1 chat": 1, "8 chats": 8, f"{CHUNK} read": 0}


def candidates(folder: Path, threads: int) -> Iterator[tuple[str, Callable[[], Runtime]]]:
    """Names, and what builds each; the first is what the others are compared with."""
    yield "torch float32", lambda: PagedRuntime(_model(folder, torch.float32), num_blocks=NUM_BLOCKS)
    yield "torch bfloat16, packed", lambda: PagedRuntime(_packed(folder), num_blocks=NUM_BLOCKS)
    yield "torchao int8, weights only", lambda: PagedRuntime(_torchao(folder), num_blocks=NUM_BLOCKS)
    yield "torch.compile (inductor)", lambda: PagedRuntime(_compiled(folder), num_blocks=NUM_BLOCKS)
    for dtype in (torch.float32, torch.bfloat16):
        for is_int8 in (False, True):
            name = f"openvino {str(dtype).removeprefix('torch.')}{', int8 weights' if is_int8 else ''}"
            yield name, lambda dtype=dtype, is_int8=is_int8: _openvino(folder, dtype, threads, is_int8=is_int8)


def measure(runtimes: dict[str, Runtime], width: int, num_rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each step."""
    times: dict[str, dict[str, list[float]]] = {name: {shape: [] for shape in SHAPES} for name in runtimes}
    for number in range(num_rounds + 1):
        for shape, num_chats in SHAPES.items():
            for name, runtime in runtimes.items():
                spans = _decode(num_chats, width) if num_chats else _read(width)
                took = [_time(runtime, spans) for _ in range(3)]
                if number:  # the first round warms up
                    times[name][shape].append(min(took) * 1000)
    return {name: {shape: statistics.median(all_of) for shape, all_of in one.items()} for name, one in times.items()}


def perplexity(runtime: Runtime, embeddings: nn.Module, passages: torch.Tensor) -> float:
    """Of `passages`, token ids `(p, n)`, each read token by token beside the others."""
    num_blocks = -(-passages.shape[1] // BLOCK_SIZE)
    lanes = [Lane([], list(range(row * num_blocks, (row + 1) * num_blocks))) for row in range(len(passages))]
    lost = []
    for position in range(passages.shape[1] - 1):
        states = embeddings(passages[:, position]).float()
        spans = [Span(lane, position, state[None], True) for lane, state in zip(lanes, states, strict=True)]
        lost.append(-runtime.run(spans).log_softmax(-1).gather(1, passages[:, position + 1 : position + 2]))
    return float(torch.cat(lost).mean().exp())


def _time(runtime: Runtime, spans: Sequence[Span]) -> float:
    started = time.perf_counter()
    runtime.run(spans)
    return time.perf_counter() - started


def _decode(num_chats: int, width: int) -> list[Span]:
    num_blocks = -(-(CONTEXT + 1) // BLOCK_SIZE)
    return [
        Span(Lane([], list(range(chat * num_blocks, (chat + 1) * num_blocks))), CONTEXT, torch.randn(1, width), True)
        for chat in range(num_chats)
    ]


def _read(width: int) -> list[Span]:
    return [Span(Lane([], list(range(CHUNK // BLOCK_SIZE))), 0, torch.randn(CHUNK, width), True)]


def _model(folder: Path, dtype: torch.dtype) -> LanguageModel:
    return LanguageModel(load_model(folder, dtype, is_vision=False), load_tokenizer(folder), name=DECODER)


def _packed(folder: Path) -> LanguageModel:
    model = _model(folder, torch.bfloat16)
    if not can_pack(model.model):
        raise RuntimeError("this CPU has no use for packed bfloat16")
    pack_linear_layers(model.model)
    return model


def _torchao(folder: Path) -> LanguageModel:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = _model(folder, torch.bfloat16)
    quantize_(model.model, Int8WeightOnlyConfig())
    return model


def _compiled(folder: Path) -> LanguageModel:
    model = _model(folder, torch.float32)  # inductor cannot take the packed layers
    for layer in model.model.get_decoder().layers:
        layer.mlp = torch.compile(layer.mlp, dynamic=True)
    return model


def _openvino(folder: Path, dtype: torch.dtype, threads: int, *, is_int8: bool) -> Runtime:
    model = load_model(folder, torch.float32, is_vision=False)
    width = model.config.hidden_size
    exported = export(model, max_positions=2048)
    if is_int8:
        exported.quantise()
    with TemporaryDirectory() as kept:
        # By way of a file, as the engine does it: its 16-bit floats are part of what is measured.
        exported.save(Path(kept) / "decoder.xml")
        found = type(exported).load(Path(kept) / "decoder.xml")
        return OpenVINORuntime(found.paged(), num_blocks=NUM_BLOCKS, dtype=dtype, num_threads=threads, width=width)


def _passages(folder: Path) -> torch.Tensor:
    """`(p, n)` token ids from the documentation of this repository."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    ids = load_tokenizer(folder)(text)["input_ids"]
    return torch.tensor(ids[: PASSAGES * PASSAGE_TOKENS]).view(PASSAGES, PASSAGE_TOKENS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-quality", action="store_true", help="leave the perplexity out, which takes minutes")
    parser.add_argument("--only", default="", help="candidates with this in their name, beside the first")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = ModelStore(arguments.cache).ensure(DECODER)
    console = Console()
    runtimes: dict[str, Runtime] = {}
    with torch.inference_mode():
        for name, build in candidates(folder, arguments.threads):
            if runtimes and arguments.only not in name:
                continue
            try:
                runtimes[name] = build()
                _time(runtimes[name], _decode(1, 576))
            except Exception as error:  # noqa: BLE001 - a candidate that cannot be had is named, and the others go on
                runtimes.pop(name, None)
                console.print(f"{name}: not measured ({type(error).__name__}: {str(error).splitlines()[0][:120]})")
        times = measure(runtimes, 576, arguments.rounds)
        embeddings, passages = _model(folder, torch.float32).model.get_input_embeddings(), _passages(folder)
        asked = {} if arguments.no_quality else runtimes
        quality = {name: perplexity(runtime, embeddings, passages) for name, runtime in asked.items()}
    first = next(iter(runtimes))
    table = Table("candidate", *(f"{shape}, ms" for shape in SHAPES), "perplexity", "of float32's")
    for name, of_one in times.items():
        cells = [f"{took:.1f} ({took / times[first][shape]:.2f} x)" for shape, took in of_one.items()]
        told = [f"{quality[name]:.3f}", f"{quality[name] / quality[first]:.4f}"] if quality else ["", ""]
        table.add_row(name, *cells, *told)
    console.print(table)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"milliseconds": times, "perplexity": quality}, indent=2), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
