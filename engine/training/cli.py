"""`commedia train`: arguments, progress bars, and what is printed.

What is done is in `engine.training.launch`, which is imported when it is needed: printing help must not load torch.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from engine.errors import ConfigurationError, EngineError
from engine.training.options import TASK_NAMES, TaskName, TrainingOptions, read_options, reference

if TYPE_CHECKING:
    from engine.training.folder import RunFolder
    from engine.training.run import Progress as Step

app = typer.Typer(
    name="train",
    help="Train the fusion of picture, words and persona, or an adapter for the language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
output = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)

DEFAULT_CACHE = Path(os.environ.get("COMMEDIA_HOME", "var")) / "cache"
HELP: dict[TaskName, str] = {
    "fusion": "Train captioning, matching, masked words and persona dialogue together.",
    "captioning": "Train only to say what a picture shows.",
    "matching": "Train only to tell which words belong to which picture.",
    "masked": "Train only to guess hidden words from the picture.",
    "persona": "Train only to answer as this persona and no other.",
    "lora": "Train an adapter for the language model on dialogues.",
}

Data = Annotated[
    list[str] | None,
    typer.Option(help="A folder of data sets, or hf:owner/name[:config][:split]. May be given several times."),
]
Run = Annotated[Path, typer.Option(help="The run's folder. Name it again to go on after an interruption.")]
OptionsFile = Annotated[
    Path | None, typer.Option("--options", metavar="FILE", help="YAML; `commedia train options TASK` prints one.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one option. May be given several times.")
]
Exclude = Annotated[
    list[Path] | None, typer.Option(help="A folder of sets to measure with: nothing in it is learnt from.")
]
Cache = Annotated[Path, typer.Option(help="Where weights and encoded pictures are kept.")]


def _command_of(task: TaskName) -> Callable[..., None]:
    def command(
        run: Run,
        data: Data = None,
        options: OptionsFile = None,
        changes: Changes = None,
        exclude: Exclude = None,
        cache: Cache = DEFAULT_CACHE,
    ) -> None:
        train(task, run, data=data or (), file=options, changes=changes or (), exclude=exclude, cache=cache)

    return command


for _task in TASK_NAMES:
    app.command(_task, help=HELP[_task])(_command_of(_task))


@app.command("options")
def print_options(
    task: Annotated[str, typer.Argument(help=f"One of {', '.join(TASK_NAMES)}.", metavar="TASK")] = "fusion",
) -> None:
    """Print a task's options with their descriptions and defaults, as YAML to start from."""
    for name in TASK_NAMES:
        if name == task:
            typer.echo(reference(name), nl=False)
            return
    raise ConfigurationError(f"there is no task {task}; there are {', '.join(TASK_NAMES)}")


def train(
    task: TaskName,
    run: Path,
    *,
    data: Sequence[str],
    file: Path | None = None,
    changes: Sequence[str] = (),
    exclude: Sequence[Path] | None = None,
    cache: Path = DEFAULT_CACHE,
) -> None:
    """Train in the folder `run`, with a bar for everything that takes its time."""
    from engine.training.folder import RunFolder

    folder = RunFolder(run)
    options = _options(task, folder, file=file, changes=changes)
    known = folder.data()
    sources = list(data) or known.get("sources", [])
    if not sources:
        raise ConfigurationError("name the data to learn from with --data (docs/training.md says how it is laid out)")
    if exclude is None:
        exclude = [Path(name) for name in known.get("exclude", ())] if not data else []
    from engine.training.launch import Watcher, launch

    with _bars() as bars:
        watcher = Watcher(_preparing(bars), _stepping(bars, options), lambda text: bars.console.print(escape(text)))
        try:
            weights = launch(options, folder, sources=sources, exclude=exclude, cache=cache, watcher=watcher)
        except KeyboardInterrupt:
            bars.console.print(f"Stopped. The same command goes on from the last checkpoint in {escape(str(run))}.")
            raise
    output.print(f"The weights are in {escape(str(weights))}; the log and its plots beside them.")


def _options(task: TaskName, folder: "RunFolder", *, file: Path | None, changes: Sequence[str]) -> TrainingOptions:
    """Those told; those of the run that is to go on, where no file is named."""
    known = folder.known_options()
    if known is None or file is not None:
        return read_options(task, file, changes=changes)
    if known.task != task:
        raise ConfigurationError(f"{folder.path} holds a run of {known.task}, not of {task}; name another folder")
    return read_options(task, folder.options_file, changes=changes)


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=output
    )


def _preparing(bars: Progress) -> Callable[[str, int, int], None]:
    """A bar a set: what was checked is encoded next, so that a bar may run twice."""
    known: dict[str, TaskID] = {}

    def advance(name: str, done: int, total: int) -> None:
        if name not in known:
            known[name] = bars.add_task(f"preparing {escape(name)}", total=total)
        bars.update(known[name], completed=done, total=total)

    return advance


def _stepping(bars: Progress, options: TrainingOptions) -> Callable[["Step"], None]:
    known: list[TaskID] = []

    def advance(step: "Step") -> None:
        if not known:
            known.append(bars.add_task("training", total=options.num_steps))
        kept_back = f", kept back {step.held_out_loss:.3f}" if step.held_out_loss is not None else ""
        bars.update(known[0], completed=step.step, description=f"training, loss {step.loss:.3f}{kept_back}")

    return advance


def main() -> None:
    """Run the command by itself; an error that says what to do is shown without a traceback."""
    # Read by OpenMP when torch is loaded: threads that spin while they wait slow a shared machine down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except EngineError as error:
        errors.print(f"[bold red]commedia:[/] {escape(str(error))}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
