"""Whether explanations mean something: a reply must lose more without the part with the largest share than without any.

Owns the measurement: for pictures from a data set, the model's own replies, the parts with the largest and with random
shares, and how much less likely the reply is without each, scored by the language model itself. `main` prints it:
`python -m engine.explaining.faithfulness --data DATA/eval --set coco`. Knows nothing of how shares are found.
"""

import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.errors import ConfigurationError, EngineError
from engine.explaining import Measure
from engine.explaining.influence import PARTS, attention_of, influence_of
from engine.explaining.shares import open_turn
from engine.fusion import load_fuser
from engine.fusion.pipeline import FusionPipeline
from engine.generation.loop import GenerationLoop
from engine.generation.sequence import Sequence as RunningReply
from engine.models.store import ModelStore
from engine.runtime.plain import plain_runtime
from engine.training.characters import SHOWING_LINES, characters, describe
from engine.training.datasets import open_pictures, read_pictures
from engine.types import GenerationRequest, Image, ReplyChunk, Role, SamplingSettings, Turn

NUM_RANDOM = 4
SAMPLING = SamplingSettings(temperature=0.5, max_new_tokens=24)
Advance = Callable[[int], None]


def faithfulness(
    language_model: LanguageModel,
    fuser: FusionPipeline,
    requests: Iterable[GenerationRequest],
    *,
    measures: Sequence[Measure] = ("influence", "attention"),
    seed: int = 0,
    advance: Advance = lambda done: None,  # noqa: ARG005
) -> dict[str, list[float]]:
    """How many nats the model's own reply to each request loses without a part of its fused turn.

    `"regions: most influence"` has, for each request, the loss without the region with the largest share, `"regions:
    most attention"` without the one that was looked at most, `"regions: random"` the mean over some random ones;
    likewise for concepts, words and facets. Item `j` of these three lists is the same reply. Turns without a choice
    (one word) are left out there, turns without a prefix everywhere.
    """
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    lost: dict[str, list[float]] = {}
    for done, request in enumerate(requests, start=1):
        for kind, column, nats in _lost(language_model, fuser, request, measures=measures, chance=chance):
            lost.setdefault(f"{kind}: {column}", []).append(nats)
        advance(done)
    return lost


def _lost(
    language_model: LanguageModel,
    fuser: FusionPipeline,
    request: GenerationRequest,
    *,
    measures: Sequence[Measure],
    chance: random.Random,
) -> Iterator[tuple[str, str, float]]:
    reply = reply_to(language_model, fuser, request)
    with torch.inference_mode(mode=False), torch.no_grad():
        explained = open_turn(language_model, fuser, request, reply) if reply.strip() else None
        if explained is None:
            return
        prefixes = explained.prefixes(fuser)
        found = {"influence": influence_of(prefixes, explained.likelihood)}
        if "attention" in measures:
            found["attention"] = attention_of(fuser.model, explained.features)
        for kind in PARTS:
            versions = prefixes.without[kind]
            if len(versions) < 2:
                continue
            tops = {f"most {measure}": int(found[measure].parts[kind].argmax()) for measure in measures}
            drawn = [chance.randrange(len(versions)) for _ in range(NUM_RANDOM)]
            chosen = [*tops.values(), *drawn]
            scores = explained.likelihood.of(torch.cat([prefixes.full, versions[chosen]]))
            yield from _columns(kind, list(tops), scores[0] - scores[1:])


def _columns(kind: str, names: Sequence[str], lost: Tensor) -> Iterator[tuple[str, str, float]]:
    for name, nats in zip(names, lost.tolist(), strict=False):
        yield kind, name, nats
    yield kind, "random", float(lost[len(names) :].mean())


def reply_to(language_model: LanguageModel, fuser: FusionPipeline, request: GenerationRequest) -> str:
    """The model's own reply, made as the engine makes it."""
    texts: list[str] = []

    def emit(answer: ReplyChunk | EngineError) -> None:
        if isinstance(answer, EngineError):
            raise answer
        texts.append(answer.text)

    loop = GenerationLoop(language_model, plain_runtime(language_model), fuser)
    loop.add(RunningReply(request, emit, time.monotonic()))
    while loop.has_work:
        loop.step()
    return "".join(texts)


def requests_about(data: Path, name: str, *, limit: int, seed: int = 0) -> Iterator[GenerationRequest]:
    """Somebody shows the first `limit` pictures of a set to one of the characters that were written for training."""
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    people, lines = characters(), [line for line in SHOWING_LINES if len(line.split()) > 1]
    with open_pictures(data, name) as read:
        for number, picture in enumerate(read_pictures(data, name)[:limit]):
            content, persona = read(picture.image), chance.choice(people).persona
            image = Image(hashlib.sha256(content).hexdigest(), content)
            turn = Turn(Role.USER, chance.choice(lines), (image,))
            sampling = SamplingSettings(SAMPLING.temperature, max_new_tokens=SAMPLING.max_new_tokens, seed=number)
            yield GenerationRequest(persona, describe(persona), (turn,), sampling)


def main(
    data: Annotated[Path, typer.Option(help="The folder with the picture set.")],
    name: Annotated[str, typer.Option("--set", help="The picture set.")] = "coco",
    limit: Annotated[int, typer.Option(help="How many pictures.")] = 60,
    weights: Annotated[Path | None, typer.Option(help="Fusion weights; the shipped ones if left out.")] = None,
    decoder: Annotated[str, typer.Option(help="The language model.")] = EngineConfig(Path()).decoder,
    adapter: Annotated[str | None, typer.Option(help="The decoder's adapter; the shipped one if left out.")] = None,
    cache: Annotated[Path, typer.Option(help="Where models are kept.")] = Path("var/cache"),
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Print how much replies lose without the parts that mattered most, and without random ones."""
    # In float32: the smallest of these differences are below the rounding of bfloat16.
    config = EngineConfig(
        cache, decoder=decoder, decoder_adapter=adapter, fusion_weights=weights, device=device, dtype="float32"
    )
    models = ModelStore(cache)
    language_model = LanguageModel.load(config, models=models)
    fuser = load_fuser(config, models=models, language_model=language_model)
    if not isinstance(fuser, FusionPipeline):
        raise ConfigurationError(f"there are no fusion weights for {decoder}: name some with --weights")
    console = Console()
    with console.status("measuring") as status:
        lost = faithfulness(
            language_model,
            fuser,
            requests_about(data, name, limit=limit),
            advance=lambda done: status.update(f"{done} replies"),
        )
    console.print(_table(lost))


def _table(lost: dict[str, list[float]]) -> Table:
    from engine.evaluation.figures import Bootstrap  # here: it needs the extra `train`

    table = Table("without", "nats lost, mean", "95 % interval", "median", "more than random", "replies")
    for column, values in lost.items():
        random_ones = lost[f"{column.split(':')[0]}: random"]
        estimate = Bootstrap().mean(values)
        interval = "" if estimate.low is None else f"{estimate.low:+.3f} to {estimate.high:+.3f}"
        share = sum(one > other for one, other in zip(values, random_ones, strict=True)) / len(values)
        median = sorted(values)[len(values) // 2]
        better = "" if column.endswith("random") else f"{share:.0%}"
        table.add_row(column, f"{estimate.value:+.3f}", interval, f"{median:+.3f}", better, str(len(values)))
    return table


if __name__ == "__main__":
    try:
        typer.run(main)
    except EngineError as error:
        sys.exit(f"faithfulness: {error}")
