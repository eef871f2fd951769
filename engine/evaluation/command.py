"""What `commedia eval` does: open everything, measure, print, write.

Owns the order of things: whatever can be wrong about folders, files and names is found before any work is done.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from engine.decoder.adapter import adapter_digest, adapter_folder
from engine.errors import ConfigurationError
from engine.evaluation.consistency import load_judge
from engine.evaluation.evaluation import Advance, EvaluationOptions, evaluate, parse_groups
from engine.evaluation.extras import needing_extras
from engine.evaluation.plots import draw_plots
from engine.evaluation.report import as_json, tables, write_json
from engine.evaluation.sets import find_sets
from engine.evaluation.subject import Subject, open_subject, shipped_weights, weights_digest
from engine.fusion.config import FusionConfig

NO_WEIGHTS = "none"


@dataclass(frozen=True, slots=True)
class EvaluationCommand:
    """The command's arguments. `weights` is a folder, `none` for the language model alone, or `None` for what ships
    with `decoder`; `adapter` likewise, of the decoder's adapter."""

    data: Path
    json: Path | None
    cache: Path
    decoder: str
    weights: str | None = None
    plots: Path | None = None
    train: Path | None = None
    only: str = ""
    limit: int | None = None
    seed: int = 0
    device: str = "auto"
    nli: str | None = None
    adapter: str | None = None
    words: str = "commedia eval"


def run(command: EvaluationCommand, console: Console) -> None:
    """Measure and report. Raises `EngineError` with a remedy."""
    started = time.monotonic()
    options = _checked_options(command)
    weights = _weights_folder(command)
    judge = load_judge(command.nli) if command.nli is not None else None
    decoder = command.decoder if weights is None else FusionConfig.load(weights).decoder
    adapter = adapter_folder(command.adapter, decoder=decoder)
    subject = open_subject(
        weights, cache=command.cache, device=command.device, decoder=command.decoder, adapter=adapter
    )
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        transient=True,
    )  # fmt: skip
    with progress:
        measured = evaluate(subject, options, advance=_bars(progress), judge=judge)
    measured.notes += _notes(subject, adapter)
    for table in tables(measured.figures):
        console.print(table)
    for note in measured.notes:
        console.print(f"[yellow]•[/] {escape(note)}")
    if command.json is not None:
        about = _about(command, options, subject, weights, adapter) | {"seconds": round(time.monotonic() - started, 1)}
        write_json(as_json(measured, **about), command.json)
        console.print(f"Written: {escape(str(command.json))}")
    if command.plots is not None:
        files = draw_plots(measured, command.plots)
        console.print(f"Drawn: {len(files)} pictures in {escape(str(command.plots))}")


def _checked_options(command: EvaluationCommand) -> EvaluationOptions:
    if command.limit is not None and command.limit < 2:
        raise ConfigurationError(f"--limit {command.limit}: there is nothing to compare below 2")
    with needing_extras():
        import matplotlib  # noqa: F401
        import pycocoevalcap  # noqa: F401
        import sacrebleu  # noqa: F401
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    find_sets(command.data)
    for path, option in ((command.json and command.json.parent, "--json"), (command.plots, "--plots")):
        if path is not None:
            _make_folder(path, option=option)
    if command.json is not None and command.json.is_dir():
        raise ConfigurationError(f"--json: {command.json} is a folder; name a file")
    train = command.train
    if train is None and (beside := command.data.resolve().parent / "train").is_dir():
        train = beside
    return EvaluationOptions(command.data, train, parse_groups(command.only), command.limit, command.seed)


def _make_folder(path: Path, *, option: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{option}: {path} cannot be made ({error.strerror}); name another place") from error


def _weights_folder(command: EvaluationCommand) -> Path | None:
    if command.weights is None:
        return shipped_weights(command.decoder)
    return None if command.weights == NO_WEIGHTS else Path(command.weights)


def _notes(subject: Subject, adapter: Path | None) -> list[str]:
    if subject.model is None or subject.model.config.adapter == adapter_digest(adapter):
        return []
    return ["the fusion weights were trained with another adapter of the decoder than the one measured (--adapter)"]


def _about(
    command: EvaluationCommand,
    options: EvaluationOptions,
    subject: Subject,
    weights: Path | None,
    adapter: Path | None,
) -> dict[str, Any]:
    """How the figures came to be."""
    model, decoder = subject.model, subject.workshop.decoder
    described: dict[str, Any] = {
        "kind": NO_WEIGHTS,
        "decoder": subject.workshop.decoder_name,
        "adapter": adapter_digest(adapter),
    }
    if model is not None and weights is not None:
        described |= {
            "kind": model.config.kind,
            "sha256": weights_digest(weights),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "policy": model.config.policy,
        }
    return {
        "command": command.words,
        "weights": described,
        "device": str(decoder.device),
        "dtype": str(decoder.model.dtype).removeprefix("torch."),
        "seed": options.seed,
        "limit": options.limit,
        "groups": list(options.groups),
        "has_training_pictures": options.train is not None,
        "nli": command.nli,
    }


def _bars(progress: Progress) -> Advance:
    bars: dict[str, TaskID] = {}

    def advance(name: str, done: int, total: int) -> None:
        if name not in bars:
            bars[name] = progress.add_task(escape(name), total=total)
        progress.update(bars[name], completed=done, total=total)

    return advance
