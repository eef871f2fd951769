"""`python -m engine.training`: train a fusion, and measure one."""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from engine.config import EngineConfig
from engine.decoder.checkpoint import open_checkpoint
from engine.device import choose_device, choose_dtype
from engine.errors import ConfigurationError, EngineError
from engine.models.store import ModelStore
from engine.training import measuring
from engine.training.run import Progress as Step
from engine.training.run import TrainingOptions, TrainingRun, new_config
from engine.training.workshop import Advance, Workshop, open_workshop, training_mix

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()

Data = Annotated[Path, typer.Option(help="Folder with the data sets (docs/training.md says how they are laid out).")]
Cache = Annotated[Path, typer.Option(help="Where weights and features are kept.")]
Decoder = Annotated[
    str, typer.Option(help="The language model: a name of the catalogue, a folder, or a Hugging Face repository.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DEFAULT_CACHE = Path("var/cache")
DEFAULTS = TrainingOptions()


@app.command("fusion")
def train_fusion(
    data: Data,
    run: Annotated[Path, typer.Option(help="The run's folder. Name it again to go on after an interruption.")],
    cache: Cache = DEFAULT_CACHE,
    decoder: Decoder = "smollm2-135m-instruct",
    device: Device = "auto",
    steps: int = DEFAULTS.num_steps,
    batch_size: int = DEFAULTS.batch_size,
    learning_rate: float = DEFAULTS.learning_rate,
    policy: Annotated[str, typer.Option(help="Which turns get a prefix: pictures, always.")] = DEFAULTS.policy,
    seed: int = DEFAULTS.seed,
) -> None:
    """Train image, text and persona fusion for a decoder that stays as it is."""
    if policy not in ("pictures", "always"):
        raise ConfigurationError(f"--policy must be pictures or always, not {policy!r}")
    options = TrainingOptions(
        num_steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        policy="always" if policy == "always" else "pictures",
        seed=seed,
    )
    torch.manual_seed(seed)
    workshop = _open(decoder, cache=cache, device=device)
    with _progress() as progress:
        mix = training_mix(workshop, data, seed=seed, shares=options.shares(), advance=_encoding_bars(progress))
        training = TrainingRun(
            run,
            options=options,
            model=workshop.new_model(new_config(decoder, workshop.decoder, options)),
            class_names=workshop.class_names,
            decoder=workshop.decoder,
            encoder=workshop.encoder,
            mix=mix,
        )
        bar = progress.add_task("training", total=steps)

        def advance(step: Step) -> None:
            progress.update(bar, completed=step.step, description=f"training, loss {step.loss:.3f}")

        folder = training.run(advance)
    console.print(f"The weights are in {folder}; name it as engine.fusion_weights, or measure it with `evaluate`.")


@app.command("evaluate")
def evaluate(
    data: Data,
    weights: Annotated[Path, typer.Option(help="A folder with trained fusion weights.")],
    cache: Cache = DEFAULT_CACHE,
    device: Device = "auto",
    pictures: Annotated[str, typer.Option(help="Picture sets, separated by commas.")] = "coco,flickr8k",
    max_pictures: int = 200,
    output: Annotated[Path | None, typer.Option(help="Also write the figures here, as JSON.")] = None,
) -> None:
    """Measure trained fusion weights on data that they have not seen."""
    decoder = measuring.decoder_of(weights)
    workshop = _open(decoder, cache=cache, device=device)
    model = measuring.load_model(weights, workshop)
    with _progress() as progress:
        figures = measuring.measure(
            model, workshop, data, pictures=pictures.split(","), limit=max_pictures, advance=_encoding_bars(progress)
        )
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _open(decoder: str, *, cache: Path, device: str) -> Workshop:
    """Half precision where the processor or the card multiplies it fast."""
    chosen = choose_device(device)
    dtype = choose_dtype("auto", chosen)
    console.print(f"Loading {decoder} in {str(dtype).removeprefix('torch.')} on {chosen}")
    models = ModelStore(cache)
    checkpoint = open_checkpoint(EngineConfig(cache_dir=cache, decoder=decoder), models, None)
    return open_workshop(checkpoint, models=models, features=cache / "features", device=str(chosen), dtype=dtype)


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _encoding_bars(progress: Progress) -> Advance:
    bars: dict[str, TaskID] = {}

    def advance(name: str, done: int, total: int) -> None:
        if name not in bars:
            bars[name] = progress.add_task(f"encoding {name}", total=total)
        progress.update(bars[name], completed=done)

    return advance


def main() -> None:
    """Run the command; an error that says what to do is shown without a traceback."""
    try:
        app()
    except EngineError as error:
        console.print(f"[red]{error}[/red]")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
