"""From options and data to a finished run: everything that `commedia train` does besides talking to people.

Owns the order: what can be wrong is found before any work is done, and before anything is written.
"""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from engine.config import EngineConfig
from engine.decoder.adapter import adapter_digest, adapter_folder
from engine.decoder.checkpoint import open_checkpoint
from engine.device import bound_threads, choose_device
from engine.errors import ConfigurationError
from engine.fusion.config import FusionConfig
from engine.fusion.model import FusionModel
from engine.fusion.weights import save_fusion
from engine.models.store import ModelStore
from engine.training.cleaning import Report, prepare_data
from engine.training.datasets import TrainingData
from engine.training.decoder import FrozenDecoder
from engine.training.folder import RunFolder
from engine.training.options import Precision, TrainingOptions
from engine.training.plots import draw_plots
from engine.training.run import Progress, TrainingRun, TrainingSetup, choose_precision
from engine.training.tasks import build_tasks
from engine.training.tasks.base import Task
from engine.training.tasks.lora import open_lora
from engine.training.workshop import open_workshop


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how far things are: `prepare` of sets that are checked and encoded, `step` of training, `say` of all
    else."""

    prepare: Callable[[str, int, int], None]
    step: Callable[[Progress], None]
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run computes with."""

    device: torch.device
    frozen: torch.dtype
    autocast: torch.dtype | None


def launch(
    options: TrainingOptions,
    folder: RunFolder,
    *,
    sources: Sequence[str],
    exclude: Sequence[Path],
    cache: Path,
    watcher: Watcher,
) -> Path:
    """Train, or go on training, in `folder`; the folder of the weights."""
    require_libraries()
    folder.check(options)
    folder.require_free()
    machine = choose_machine(options, folder)
    started = time.time()
    data, report = prepare_data(
        sources, options.data, cache=cache, advance=watcher.prepare, seed=options.seed, exclude=exclude
    )
    folder.check(options, data_digest=data.digest)
    bound_threads(None)
    watcher.say(f"Training {options.task} for {options.decoder}, {_in_words(machine)}")
    torch.manual_seed(options.seed)
    setup = open_setup(options, data, machine, cache=cache, advance=watcher.prepare)
    with folder.held():
        folder.check(options, data_digest=data.digest)  # another run may have come and gone since
        run = TrainingRun(folder, options=options, setup=setup, device=machine.device, autocast=machine.autocast)
        folder.begin(options, data=report.as_json(digest=data.digest), skipped=_rows(report))
        if run.step:
            watcher.say(f"Going on from step {run.step}")
        try:
            return run.run(watcher.step)
        finally:
            try:
                folder.write_environment(environment(machine, started=started) | run.summary())
                draw_plots(folder.read_log(), folder.path)
            except OSError as error:
                watcher.say(f"The run's figures and plots cannot be written: {error}")


def require_libraries() -> None:
    """Raises `ConfigurationError` where those of the extra are missing, before hours of work end without a plot."""
    if any(find_spec(name) is None for name in ("imagehash", "matplotlib")):
        raise ConfigurationError("training needs more libraries: pip install 'commedia[train]'")


def choose_machine(options: TrainingOptions, folder: RunFolder) -> Machine:
    """Device and number formats. A run that goes on keeps those that it was started with, as `auto` may measure
    another way the second time."""
    device = choose_device(options.device)
    known: dict[str, Precision] = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
    before = folder.environment()
    is_as_before = options.precision == "auto" and before.get("device") == device.type
    precision = known.get(str(before.get("precision")), "auto") if is_as_before else options.precision
    return Machine(device, *choose_precision(precision, device))


def open_setup(
    options: TrainingOptions,
    data: TrainingData,
    machine: Machine,
    *,
    cache: Path,
    advance: Callable[[str, int, int], None],
) -> TrainingSetup:
    """Models, tasks, and how their weights are kept."""
    # The library's own bars would break into ours.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    models = ModelStore(cache)
    checkpoint = open_checkpoint(EngineConfig(cache_dir=cache, decoder=options.decoder), models, None)
    if options.task == "lora":
        return open_lora(checkpoint, data, options, device=machine.device, dtype=machine.frozen)
    adapter = adapter_folder(options.adapter, decoder=options.decoder)
    workshop = open_workshop(
        checkpoint,
        models=models,
        features=cache / "features",
        device=str(machine.device),
        dtype=machine.frozen,
        adapter=adapter,
    )
    model = workshop.new_model(new_config(options, workshop.decoder, adapter=adapter_digest(adapter)))

    def tasks(*, is_held_out: bool) -> list[Task]:
        return build_tasks(
            model,
            workshop=workshop,
            data=data.held_out if is_held_out else data.learn,
            options=options,
            advance=advance,
            is_held_out=is_held_out,
        )

    return TrainingSetup(
        module=model,
        tasks=tasks(is_held_out=False),
        held_out=_or_none(lambda: tasks(is_held_out=True)),
        save=lambda folder: save_fusion(model, workshop.class_names, folder),
        gauges=lambda: gates_of(model),
        forget=workshop.encoder.forget,
    )


def _or_none(build: Callable[[], list[Task]]) -> list[Task]:
    """A set of one row has none to keep back."""
    try:
        return build()
    except ConfigurationError:
        return []


def new_config(options: TrainingOptions, decoder: FrozenDecoder, *, adapter: str = "") -> FusionConfig:
    """The configuration of a fusion that is to be trained with `options`; `adapter` is the digest of the decoder's."""
    told = options.fusion
    return FusionConfig(
        decoder=options.decoder,
        decoder_width=decoder.embeddings.shape[-1],
        embedding_scale=decoder.embedding_scale,
        kind=told.kind,
        width=told.width,
        num_layers=told.num_layers,
        num_heads=told.num_heads,
        num_prefix_tokens=told.num_prefix_tokens,
        num_lexical_tokens=told.num_lexical_tokens,
        num_quoted_tokens=told.num_quoted_tokens,
        has_steering=told.has_steering,
        policy=told.policy,
        has_heads=bool({"matching", "masked"} & options.active_tasks().keys()),
        adapter=adapter,
    )


def gates_of(model: FusionModel) -> dict[str, float]:
    """How far each gate is open, from 0 to 1."""
    return {
        name.removesuffix("gate").rstrip("._") or "gate": round(gate.detach().tanh().abs().mean().item(), 4)
        for name, gate in model.named_parameters()
        if name.endswith("gate")
    }


def environment(machine: Machine, *, started: float) -> dict[str, Any]:
    """What the run was computed with, for `environment.json`."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "device": machine.device.type,
        "device_name": torch.cuda.get_device_name(machine.device) if machine.device.type == "cuda" else None,
        "num_threads": torch.get_num_threads(),
        "precision": _name(machine.frozen),
        "autocast": _name(machine.autocast) if machine.autocast is not None else None,
        "last_started": round(started, 1),
        "last_wall_s": round(time.time() - started, 1),
    }


_PACKAGES = ("commedia", "torch", "transformers", "safetensors", "numpy")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _in_words(machine: Machine) -> str:
    products = f", products in {_name(machine.autocast)}" if machine.autocast is not None else ""
    return f"frozen models in {_name(machine.frozen)} on {machine.device}{products}"


def _rows(report: Report) -> list[dict[str, str]]:
    return [{"set": one.set, "item": one.item, "reason": one.reason} for one in report.skipped]
