"""What the way of fusing is worth: every fusion trained alike, and measured on the same data.

    python -m benchmarks.fusion_ablation --train TRAIN --eval EVAL --out FOLDER

Each kind is trained for each seed on the same samples (captioning and persona lines), for the same number of steps,
with the same number of parameters within 5 %; `none` is the language model without a prefix. Prints mean, standard
deviation and range over the seeds, and whether co-attention is ahead by more than the seeds' spread. FOLDER keeps every
finished run as a line of results.jsonl, and every unfinished one with its checkpoint: the same command goes on where it
stopped. Without --eval the rows kept back from TRAIN are measured, which is where settings may be tried.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from engine.config import EngineConfig
from engine.decoder.adapter import adapter_digest, adapter_folder
from engine.decoder.checkpoint import open_checkpoint
from engine.device import bound_threads, choose_device
from engine.errors import EngineError
from engine.evaluation.dialogues import dialogue_samples
from engine.evaluation.personas import comparable, least, losses_by_persona
from engine.evaluation.pictures import SeenPicture, neighbours, open_set
from engine.evaluation.sets import draw, find_sets
from engine.evaluation.subject import Subject
from engine.fusion.kinds import COATTENTION, KINDS
from engine.fusion.model import FusionModel
from engine.fusion.weights import save_fusion
from engine.models.store import ModelStore
from engine.training.cleaning import prepare_data
from engine.training.datasets import DataSets, PersonaDialogue, StyledAnswers, read_dialogues, read_styled_answers
from engine.training.folder import RunFolder
from engine.training.launch import new_config
from engine.training.options import TrainingOptions, read_options
from engine.training.run import TrainingRun, TrainingSetup, choose_precision
from engine.training.samples import caption_sample
from engine.training.tasks import build_tasks
from engine.training.workshop import Workshop, open_workshop

ROOT = Path(__file__).parent.parent
NO_FUSION = "none"
MAX_DIFFERENCE = 0.05
RESULTS = "results.jsonl"
# A cheap joint mix: what a picture shows, and how a persona talks.
OPTIONS = (
    "tasks.matching.weight=0", "tasks.masked.weight=0", "fusion.policy=always", "validate_every=0",
    "checkpoint_every=100", "log_every=10",
)  # fmt: skip
# Figure → whether more is better.
FIGURES = {
    "caption NLL": False,
    "captions likelier with their picture": True,
    "right persona of a reply": True,
    "styled reply NLL": False,
    "dialogue reply NLL": False,
}

console = Console(width=None if sys.stdout.isatty() else 140)


@dataclass(frozen=True, slots=True)
class Measures:
    """What every fusion is measured with."""

    pictures: dict[str, list[SeenPicture]]
    num_captions: int
    answers: tuple[StyledAnswers, ...]
    styles: tuple[str, ...]
    dialogues: tuple[PersonaDialogue, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share. `identity` names data and settings: results under another are not mixed in."""

    workshop: Workshop
    learn: DataSets
    options: TrainingOptions
    autocast: torch.dtype | None
    measures: Measures
    folder: Path
    identity: str


def main() -> None:
    arguments = _parser().parse_args()
    try:
        _run(arguments)
    except EngineError as error:
        sys.exit(f"fusion_ablation: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder with training sets")
    parser.add_argument("--eval", type=Path, help="folder with sets to measure on; left out: rows kept back from TRAIN")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--kinds", default=",".join((*KINDS, NO_FUSION)), help="fusions, with commas")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, … of each kind")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of training")
    parser.add_argument("--budget-minutes", type=float, help="begin no run after so many minutes")
    parser.add_argument("--limit", type=int, default=300, help="lines and dialogues that are measured; 0: all")
    parser.add_argument("--captions", type=int, default=5, help="captions of each picture that are measured")
    parser.add_argument("--pictures", default="", help="picture sets that are measured, with commas; left out: all")
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the training sets that is kept back")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--device", default="auto")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    kinds = [kind for kind in arguments.kinds.split(",") if kind]
    if unknown := [kind for kind in kinds if kind not in (*KINDS, NO_FUSION)]:
        sys.exit(
            f"fusion_ablation: there is no fusion {', '.join(unknown)}; known are {', '.join((*KINDS, NO_FUSION))}"
        )
    bench = _open(arguments)
    num_parameters = _require_like_sizes(bench, [kind for kind in kinds if kind != NO_FUSION])
    for kind, seed in _missing(bench, kinds, num_parameters, num_seeds=arguments.seeds):
        spent = (time.monotonic() - started) / 60
        if arguments.budget_minutes is not None and spent >= arguments.budget_minutes:
            console.print(f"{spent:.0f} minutes are spent; the same command goes on with {kind}, seed {seed}")
            break
        _one(bench, kind, seed, num_parameters=num_parameters.get(kind, 0))
    _report(bench, kinds, num_parameters, json_path=arguments.json)


def _open(arguments: argparse.Namespace) -> Bench:
    """Models and data; everything that can be wrong is found here."""
    device = choose_device(arguments.device)
    bound_threads(None)
    changes = [*OPTIONS, f"num_steps={arguments.steps}", f"data.held_out={arguments.held_out}", *arguments.set]
    options = read_options("fusion", changes=changes)
    dtype, autocast = choose_precision(options.precision, device)
    models = ModelStore(arguments.cache)
    decoder = open_checkpoint(EngineConfig(cache_dir=arguments.cache, decoder=options.decoder), models)
    workshop = open_workshop(
        decoder, models=models, features=arguments.cache / "features", device=str(device), dtype=dtype,
        adapter=adapter_folder(options.adapter, decoder=options.decoder),
    )  # fmt: skip
    exclude = [] if arguments.eval is None else [arguments.eval]
    data, _ = prepare_data(
        [str(arguments.train)], options.data, cache=arguments.cache, advance=_say_nothing, exclude=exclude
    )
    measures = _measures(workshop, arguments, held_out=data.held_out)
    told = [options.model_dump_json(exclude={"device", "precision", "seed"}), data.digest, str(dtype)]
    told += [str(arguments.eval), str(arguments.limit), str(arguments.captions), arguments.pictures]
    arguments.out.mkdir(parents=True, exist_ok=True)
    identity = sha256("\n".join(told).encode()).hexdigest()[:12]
    console.print(f"{options.decoder} in {dtype} on {device}, {options.num_steps} steps; settings {identity}")
    return Bench(workshop, data.learn, options, autocast, measures, arguments.out, identity)


def _measures(workshop: Workshop, arguments: argparse.Namespace, *, held_out: DataSets) -> Measures:
    limit = arguments.limit or None
    wanted = [name for name in arguments.pictures.split(",") if name]
    if arguments.eval is None:
        pictures = dict(_held_out_pictures(workshop, held_out))
        answers, dialogues = list(held_out.answers), list(held_out.dialogues)
    else:
        found = find_sets(arguments.eval)
        pictures = {
            name: open_set(workshop, arguments.eval, name, limit=None, seed=0, advance=_say_nothing)[0]
            for name in wanted or found.pictures
        }
        answers = [
            one for name in found.styled_answers for one in read_styled_answers(arguments.eval / f"{name}.jsonl")
        ]
        dialogues = [one for name in found.dialogues for one in read_dialogues(arguments.eval / f"{name}.jsonl")]
    styles, lines, _ = comparable(answers)
    return Measures(
        pictures={name: seen for name, seen in pictures.items() if not wanted or name in wanted},
        num_captions=arguments.captions,
        answers=tuple(draw(lines, limit=limit, seed=0)),
        styles=styles,
        dialogues=tuple(draw(dialogues, limit=limit, seed=0)),
        seed=0,
    )


def _held_out_pictures(workshop: Workshop, held_out: DataSets) -> Iterator[tuple[str, list[SeenPicture]]]:
    """Photos with human captions; pictures of single things are named by template."""
    for one in held_out.with_role("scenes"):
        source = workshop.encode(one, _say_nothing)
        yield (
            one.name,
            [SeenPicture(p.image, source.features.row(row), p.captions) for row, p in enumerate(source.pictures)],
        )


def _say_nothing(_name: str, _done: int, _total: int) -> None:
    """Encoding is quick, and cached."""


def _new_model(bench: Bench, kind: str, seed: int) -> FusionModel:
    torch.manual_seed(seed)
    options = _of_kind(bench.options, kind)
    adapter = adapter_digest(adapter_folder(options.adapter, decoder=options.decoder))
    return bench.workshop.new_model(new_config(options, bench.workshop.decoder, adapter=adapter))


def _of_kind(options: TrainingOptions, kind: str) -> TrainingOptions:
    return options.model_copy(update={"fusion": options.fusion.model_copy(update={"kind": kind})})


def _require_like_sizes(bench: Bench, kinds: Sequence[str]) -> dict[str, int]:
    """Parameters of each kind. Ends the program where they are not alike."""
    sizes = {kind: sum(p.numel() for p in _new_model(bench, kind, 0).parameters()) for kind in (*kinds, COATTENTION)}
    wanted = sizes[COATTENTION]
    for kind, size in sizes.items():
        console.print(f"  {kind:12} {size:>10,} parameters, {size / wanted - 1:+.2%}")
    if unlike := [kind for kind, size in sizes.items() if abs(size / wanted - 1) > MAX_DIFFERENCE]:
        sys.exit(f"fusion_ablation: {', '.join(unlike)} are not of co-attention's size within {MAX_DIFFERENCE:.0%}")
    return sizes


def _results(bench: Bench, sizes: dict[str, int]) -> list[dict[str, Any]]:
    path = bench.folder / RESULTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows: list[dict[str, Any]] = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # a line that a kill cut short: its run is done again
    # A fusion that has changed its size since is another one.
    return [
        row
        for row in rows
        if row["identity"] == bench.identity and row["num_parameters"] == sizes.get(row["kind"], row["num_parameters"])
    ]


def _missing(bench: Bench, kinds: Sequence[str], sizes: dict[str, int], *, num_seeds: int) -> Iterator[tuple[str, int]]:
    """Runs that are not finished, all kinds of a seed before the next: a table can be had early."""
    done = {(row["kind"], row["seed"]) for row in _results(bench, sizes)}
    for seed in range(num_seeds):
        for kind in kinds:
            if (kind, seed) not in done and not (kind == NO_FUSION and seed):
                yield kind, seed


def _one(bench: Bench, kind: str, seed: int, *, num_parameters: int) -> None:
    """Train and measure one fusion, and keep the result."""
    started = time.monotonic()
    model = None if kind == NO_FUSION else _train(bench, kind, seed)
    trained = time.monotonic()
    figures = _measure(Subject(bench.workshop, model), bench.measures)
    row = {
        "identity": bench.identity,
        "kind": kind,
        "seed": seed,
        "num_parameters": num_parameters,
        "steps": bench.options.num_steps,
        "train_s": round(trained - started, 1),
        "measure_s": round(time.monotonic() - trained, 1),
        "figures": figures,
    }
    with (bench.folder / RESULTS).open("a", encoding="utf-8") as results:
        results.write(json.dumps(row) + "\n")
        results.flush()
        os.fsync(results.fileno())
    told = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
    console.print(f"{kind}, seed {seed}: {row['train_s']:.0f} + {row['measure_s']:.0f} s; {told}")


def _train(bench: Bench, kind: str, seed: int) -> FusionModel:
    options = _of_kind(bench.options, kind).model_copy(update={"seed": seed})
    model = _new_model(bench, kind, seed)
    tasks = build_tasks(model, workshop=bench.workshop, data=bench.learn, options=options, advance=_say_nothing)
    names = bench.workshop.class_names
    run = TrainingRun(
        RunFolder(bench.folder / f"{bench.identity}-{kind}-{seed}"),
        options=options,
        setup=TrainingSetup(model, tasks, save=lambda folder: save_fusion(model, names, folder)),
        device=torch.device(bench.workshop.device),
        autocast=bench.autocast,
    )
    with console.status("") as status:
        run.run(lambda step: status.update(f"{kind}, seed {seed}: {step.step}/{step.num_steps}, loss {step.loss:.3f}"))
    return model.eval()


def _measure(subject: Subject, measures: Measures) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, pictures in measures.pictures.items():
        right = subject.losses(_captions(pictures, pictures, num=measures.num_captions))
        wrong = subject.losses(_captions(pictures, neighbours(pictures), num=measures.num_captions))
        figures[f"caption NLL, {name}"] = float(right.mean())
        figures[f"captions likelier with their picture, {name}"] = float(
            ((right < wrong) + 0.5 * (right == wrong)).mean()
        )
    if measures.answers:
        losses = losses_by_persona(subject, measures.answers, measures.styles)
        places = range(len(measures.styles))
        figures["right persona of a reply"] = float(least(losses)[:, places, places].mean())
        figures["styled reply NLL"] = float(losses[:, places, places].mean())
    if measures.dialogues:
        samples = dialogue_samples(measures.dialogues, num_told=0, seed=measures.seed)
        figures["dialogue reply NLL"] = float(subject.losses(samples).mean())
    return figures


def _captions(pictures: Sequence[SeenPicture], shown: Sequence[SeenPicture], *, num: int) -> list[Any]:
    return [
        caption_sample(caption, other.features)
        for picture, other in zip(pictures, shown, strict=True)
        for caption in picture.captions[:num]
    ]


def _report(bench: Bench, kinds: Sequence[str], sizes: dict[str, int], *, json_path: Path | None) -> None:
    rows = [row for row in _results(bench, sizes) if row["kind"] in kinds]
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    summary = {name: _summary(rows, name, kinds) for name in names}
    for name, by_kind in summary.items():
        table = Table(
            "fusion", "parameters", "seeds", "mean", "sd", "range", "co-attention is ahead by", "", title=name
        )
        for kind, one in by_kind.items():
            ahead = "" if one["ahead"] is None else f"{one['ahead']:+.4f}"
            table.add_row(
                kind, f"{sizes.get(kind, 0):,}", str(one["num_seeds"]), f"{one['mean']:.4f}", f"{one['sd']:.4f}",
                f"{one['min']:.4f} to {one['max']:.4f}", ahead, one["verdict"],
            )  # fmt: skip
        console.print(table)
    if json_path is not None:
        told = {"options": bench.options.model_dump(mode="json"), "parameters": sizes, "summary": summary, "runs": rows}
        json_path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _summary(rows: Sequence[dict[str, Any]], name: str, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    values = {
        kind: found
        for kind in kinds
        if (found := [row["figures"][name] for row in rows if row["kind"] == kind and name in row["figures"]])
    }
    is_more_better = next(better for figure, better in FIGURES.items() if name.startswith(figure))
    ours = values.get(COATTENTION)
    return {
        kind: _compare(found, ours if kind != COATTENTION else None, is_more_better) for kind, found in values.items()
    }


def _compare(values: list[float], ours: list[float] | None, is_more_better: bool) -> dict[str, Any]:
    """`ahead` is positive where co-attention is better. It is clearly better where its worst seed beats the other's
    best, and likely where the means differ by more than both standard deviations together."""
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    told: dict[str, Any] = {
        "num_seeds": len(values), "mean": statistics.mean(values), "sd": sd, "min": min(values), "max": max(values),
        "ahead": None, "verdict": "",
    }  # fmt: skip
    if ours is None:
        return told
    sign = 1 if is_more_better else -1
    ahead = sign * (statistics.mean(ours) - statistics.mean(values))
    spread = sd + (statistics.stdev(ours) if len(ours) > 1 else 0.0)
    if len(ours) < 2:
        return {**told, "ahead": ahead, "verdict": "one seed: no spread"}
    verdict = "behind" if ahead < 0 else "within the spread"
    if ahead > spread:
        verdict = "more than the spread"
    if ahead > 0 and min(sign * value for value in ours) > max(sign * value for value in values):
        verdict = "every seed"
    if ahead < -spread:
        verdict = "behind, more than the spread"
    return {**told, "ahead": ahead, "verdict": verdict}


if __name__ == "__main__":
    main()
