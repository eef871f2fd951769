"""What encoders and fusion add to the time to the first token of a turn without a picture.

    python -m benchmarks.fusion_overhead --json OUT

Three engines in one process, on one thread, are asked the same questions in turn: without fusion, with fusion as it is
configured, and with the same weights giving every turn a prefix (policy `always`), which is the most that fusion can
cost. Prints medians in seconds, and the medians of the rounds' ratios: *seen*, where earlier messages of the persona
have warmed every cache, and *cold*, where the persona was never met.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request
from engine.backends.local import build
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.fusion.config import FusionConfig
from engine.fusion.weights import shipped_folder
from engine.generation.loop import GenerationLoop
from engine.generation.sequence import Sequence
from engine.persona import Persona
from engine.types import GenerationRequest, ReplyChunk, Role, SamplingSettings, Turn

ROOT = Path(__file__).parent.parent
QUESTIONS = (
    "What do you sell?",
    "Is it raining?",
    "Tell me about yourself.",
    "What did you eat?",
    "Any advice?",
    "Hm?",
)
WITHOUT, CONFIGURED, ALWAYS = "without", "configured", "always"
SAMPLING = SamplingSettings(temperature=0.0, max_new_tokens=1)


def first_token_s(loop: GenerationLoop, request: GenerationRequest) -> tuple[float, bool]:
    """Seconds from the request to its first token, and whether the turn had a prefix."""
    answers: list[ReplyChunk | EngineError] = []
    loop.add(Sequence(request, answers.append, accepted_at=time.monotonic()))
    while loop.has_work:
        loop.step()
    last = answers[-1]
    if isinstance(last, EngineError):
        raise last
    assert last.stats is not None
    return last.stats.time_to_first_token_s, last.stats.has_fused_prefix


def open_loops(cache: Path, weights: Path) -> dict[str, GenerationLoop]:
    """The three engines."""
    config = EngineConfig(cache_dir=cache, fusion=FusionConfig.load(weights).kind, fusion_weights=weights)
    with tempfile.TemporaryDirectory() as folder:
        always = Path(folder) / "weights"
        shutil.copytree(weights, always)
        replace(FusionConfig.load(weights), policy="always").save(always)
        return {
            WITHOUT: build(replace(config, fusion="none", fusion_weights=None)),
            CONFIGURED: build(config),
            ALWAYS: build(replace(config, fusion_weights=always)),
        }


def measure(loops: dict[str, GenerationLoop], persona: Persona, num_rounds: int) -> dict[str, float]:
    """Medians of interleaved rounds; the first of each kind warms up and is not counted."""
    figures: dict[str, float] = {}
    for way in ("seen", "cold"):
        rounds = [_round(loops, persona, number, is_cold=way == "cold") for number in range(num_rounds + 1)][1:]
        for name in loops:
            figures[f"{way}: {name}, s"] = statistics.median(times[name] for times in rounds)
        for name in (CONFIGURED, ALWAYS):
            ratios = [times[name] / times[WITHOUT] for times in rounds]
            figures[f"{way}: {name} / without"] = statistics.median(ratios)
    return figures


def _round(loops: dict[str, GenerationLoop], persona: Persona, number: int, *, is_cold: bool) -> dict[str, float]:
    """One question to each engine, another one first each time. Nobody has asked it before in these words."""
    if is_cold:
        persona = persona.model_copy(
            update={"name": f"{persona.name} {number}", "summary": f"{number}. {persona.summary}"}
        )
    words = f"{QUESTIONS[number % len(QUESTIONS)]} I ask for the {number + 1}. time."
    request = build_request(persona, [Turn(Role.USER, words)], sampling=SAMPLING)
    names = list(loops)
    order = [names[(number + j) % len(names)] for j in range(len(names))]
    times = {}
    for name in order:
        times[name], has_prefix = first_token_s(loops[name], request)
        assert has_prefix or name != ALWAYS, "the policy `always` gave no prefix"
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--weights", type=Path, default=shipped_folder("smollm2-135m-instruct"))
    parser.add_argument("--persona", default="grub")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    library = PersonaLibrary([ROOT / "personas"])
    library.load()
    figures = measure(open_loops(arguments.cache, arguments.weights), library.get(arguments.persona), arguments.rounds)
    for name, value in figures.items():
        print(f"{name:28} {value:8.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
