"""The `commedia` command.

Owns arguments, what is printed, and exit statuses: 0 well, 1 failed with a message, 2 wrong usage. Knows no platform.
"""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from json import dumps as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from bot.errors import BotError, PersonaError, SettingsError
from bot.logs import configure_logging
from bot.personas.arrivals import Arrival, bring_in, card_of
from bot.personas.cards.card import Version as CardNumber
from bot.personas.cards.containers import Container
from bot.personas.cards.convert import losses, to_version, write_card
from bot.personas.cards.files import NameTaken, read_bytes, write_file
from bot.personas.library import PersonaLibrary, persona_files, persona_id_of
from bot.personas.reading import InvalidPersona, NoPersona, PersonaProblem, read_persona
from bot.personas.template import new_persona
from bot.settings import Settings, read_settings, reference
from bot.types import Room
from engine.errors import EngineError
from engine.training.cli import app as training_commands

if TYPE_CHECKING:
    from bot.adapters.console import Reasons
    from bot.app import Application
    from bot.bench import BenchOptions, BenchReport
    from engine.models.fetch import Progress as ModelProgress

app = typer.Typer(
    name="commedia",
    help="Chatbots with multimodal personas on Discord, Telegram and a local page.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
persona_commands = typer.Typer(help="Look at personas, check them, start a new one.", no_args_is_help=True)
model_commands = typer.Typer(help="Look at the weights, and bring them.", no_args_is_help=True)
database_commands = typer.Typer(help="Look after the database.", no_args_is_help=True)
app.add_typer(persona_commands, name="persona")
app.add_typer(model_commands, name="models")
app.add_typer(database_commands, name="db")
app.add_typer(training_commands, name="train")

output = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        output.print(f"commedia {version('commedia')}")
        raise typer.Exit


ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings to read instead of commedia.toml.")
]


def main() -> None:
    """The process: run the command line, and end even where an engine was left behind."""
    try:
        run_command_line()
    except SystemExit as end:
        _end_at_once_if_stuck(end.code)
        raise


def run_command_line() -> None:
    """Run the command that `sys.argv` names; turn every expected error into a message and an exit status."""
    # Read by OpenMP when torch is loaded: threads that spin while they wait slow a shared machine down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except (BotError, EngineError) as error:
        errors.print(f"[bold red]commedia:[/] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_at_once_if_stuck(status: str | int | None) -> None:
    """Python cannot end in order while native code of an engine that was left behind runs: it aborts the process."""
    from engine.thread import THREAD_NAME

    if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


@app.callback()
def commedia(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Chatbots with multimodal personas on Discord, Telegram and a local page."""


@app.command()
def run(config: ConfigOption = None) -> None:
    """Serve the local page, and Discord and Telegram where their tokens are set."""
    from bot.app import prepare_home, serve

    settings = read_settings(config)
    prepare_home(settings.home)
    configure_logging(settings.log.level, folder=settings.home / "logs", secrets=settings.secrets())
    _bring_weights(settings)
    sys.exit(asyncio.run(serve(settings)))


@app.command()
def chat(
    persona: Annotated[str | None, typer.Option(help="Id or name of the persona.")] = None,
    message: Annotated[str | None, typer.Option(help="Say this, print the reply, and end.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to show; may be given several times.")] = None,
    seed: Annotated[int | None, typer.Option(help="Make the replies repeatable.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Show after each reply what it was made of.")] = False,
    config: ConfigOption = None,
) -> None:
    """Talk to a persona in the terminal."""
    settings = read_settings(config)
    configure_logging("warning", secrets=settings.secrets())
    _bring_weights(settings)
    asyncio.run(_chat(settings, persona=persona, message=message, images=tuple(image or ()), seed=seed, why=why))


async def _chat(
    settings: Settings,
    *,
    persona: str | None,
    message: str | None,
    images: tuple[Path, ...],
    seed: int | None,
    why: bool,
) -> None:
    from bot.adapters.console import ConsoleAdapter, ask_once, show_reasons
    from bot.app import open_application

    async with open_application(settings, seed=seed) as application:
        chat = application.chat
        persona_id = None if persona is None else chat.find_persona(persona).id
        if message is None and not images:
            await ConsoleAdapter(
                handler=chat,
                browser=chat,
                commands=application.commands,
                persona_id=persona_id,
                explain=partial(_explain, application) if why else None,
            ).run()
            return
        # A single question gets a room of its own, so that its answer depends on nothing that was said before.
        room = Room(platform="console", chat_id=f"once-{uuid4().hex}")
        if persona_id is not None:
            await chat.choose(room, persona_id)
        try:
            await ask_once(chat, room=room, text=message or "", image_paths=images, write=_write)
            if why:
                show_reasons(output, await _explain(application, room))
        finally:
            await chat.start_over(room)


async def _explain(application: "Application", room: Room) -> "Reasons":
    """What the last reply in `room` was made of, drawn into a file of the home folder."""
    from bot.adapters.console import Reasons
    from bot.media import heatmap
    from bot.personas.telling import describe_context
    from bot.types import ChatKind

    asked = await application.chat.asked(room, ChatKind.DIRECT)
    explanation = await application.engine.explain(asked.request, asked.reply)
    text = f"{heatmap.describe(explanation)}\n{describe_context(asked.report)}"
    if not explanation.has_prefix:
        return Reasons(explanation, text)
    title = f"Why {asked.request.persona.name} said: {' '.join(asked.reply.split())[:80]}"
    drawn = await asyncio.to_thread(heatmap.draw, explanation, heatmap.explained_pictures(asked.request), title=title)
    folder = application.settings.home / "why"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now():%Y-%m-%d-%H%M%S}-{asked.request.persona.id}.png"
    path.write_bytes(drawn)
    return Reasons(explanation, text, path)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@app.command()
def doctor(config: ConfigOption = None) -> None:
    """Say what is missing or wrong, and how to mend it."""
    from bot.doctor import Level, examine

    marks = {Level.OK: "[green]✓[/]", Level.HINT: "[yellow]•[/]", Level.PROBLEM: "[bold red]✗[/]"}

    async def report(settings: Settings) -> bool:
        is_well = True
        async for finding in examine(settings):
            is_well &= finding.level is not Level.PROBLEM
            output.print(f"{marks[finding.level]} [bold]{finding.subject}[/]: {escape(finding.text)}")
            if finding.remedy:
                output.print(f"    {escape(finding.remedy)}")
        return is_well

    settings = read_settings(config)
    configure_logging("error", secrets=settings.secrets())
    sys.exit(0 if asyncio.run(report(settings)) else 1)


@app.command()
def bench(
    chats: Annotated[int, typer.Option(min=1, max=1000, help="How many talk at once.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How many messages each of them writes.")] = 3,
    tokens: Annotated[int, typer.Option(min=1, max=8192, help="Longest reply, in tokens.")] = 64,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write everything here.")] = None,
    config: ConfigOption = None,
) -> None:
    """Load the configured engine with many chats, and say how it keeps up (docs/benchmarks.md)."""
    from bot.bench import BenchOptions, show

    settings = read_settings(config)
    configure_logging("warning", secrets=settings.secrets())
    _bring_weights(settings)
    report = asyncio.run(_bench(settings, BenchOptions(chats, rounds, tokens)))
    if report.replies:
        Console().print(show(report))
    hits = "" if report.cache_hits is None else f"; {report.cache_hits:.0%} of all prompt tokens had been read before"
    output.print(f"{report.tokens_per_s:.1f} tokens/s in all, {report.wall_s:.1f} s{hits}.", highlight=False)
    if report.device:
        output.print(f"Computed on {escape(report.device)}.", highlight=False)
    for reason, number in Counter(failure.reason for failure in report.failures).most_common():
        errors.print(f"[bold red]{number} {'chat' if number == 1 else 'chats'} failed:[/] {escape(reason)}")
    if json is not None:
        _write_json(json, report.as_json())
    sys.exit(1 if report.failures else 0)


async def _bench(settings: Settings, options: "BenchOptions") -> "BenchReport":
    from bot.app import build_engine, sampling_defaults
    from bot.bench import measure

    library = PersonaLibrary(settings.persona_folders())
    library.load()
    _print_problems(library.problems)
    if not (personas := library.all()):
        raise SettingsError("There is no persona to talk to: `commedia persona new NAME` writes one.")
    engine = build_engine(settings)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=errors) as bars:
        bar = bars.add_task("loading the model", total=None)
        try:
            await engine.start()
            bars.update(bar, description="talking", total=options.num_chats * options.num_rounds)
            sampling = sampling_defaults(settings)
            return await measure(engine, personas, options, sampling=sampling, on_reply=lambda: bars.advance(bar))
        finally:
            await engine.aclose()


def _write_json(path: Path, values: dict[str, Any]) -> None:
    try:
        path.write_text(json_text(values, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}. Name another file.") from None


@app.command("eval")
def evaluate(
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Data sets that nothing was trained on.")],
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write everything here.")] = None,
    plots: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also draw the figures here.")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Trained fusion weights, or `none`; what ships if left out.")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Training sets, for nearest-neighbour captions; FOLDER/../train if there."),
    ] = None,
    only: Annotated[
        str, typer.Option(help="Of likelihood, captions, matching, personas, dialogues, consistency, with commas.")
    ] = "",
    limit: Annotated[int | None, typer.Option(help="At most so many pictures, lines or dialogues of each set.")] = None,
    seed: Annotated[int, typer.Option(help="Of the resamples, and of what --limit draws.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    nli: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A natural language inference model to judge replies with.")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="An adapter of the decoder, or `none`; what ships if left out."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure fusion weights: captions, matching, personas (docs/evaluation.md)."""
    from engine.evaluation.command import EvaluationCommand, run

    settings = read_settings(config)
    command = EvaluationCommand(
        data=data, json=json, plots=plots, weights=weights, train=train, only=only, limit=limit, seed=seed,
        device=device, nli=nli, adapter=adapter, cache=settings.cache_dir, decoder=settings.engine.decoder,
        words=" ".join(["commedia", *sys.argv[1:]]),
    )  # fmt: skip
    run(command, Console())


@app.command()
def settings() -> None:
    """Print every option with its description and default, as a commedia.toml to start from."""
    sys.stdout.write(reference())


@persona_commands.command("list")
def persona_list(config: ConfigOption = None) -> None:
    """List the personas that can be talked to."""
    library = PersonaLibrary(read_settings(config).persona_folders())
    library.load()
    table = Table("id", "name", "language", "summary", box=None, pad_edge=False)
    for persona in library.all():
        table.add_row(persona.id, escape(persona.name), persona.language, escape(library.card(persona).summary))
    Console().print(table)
    _print_problems(library.problems)


@persona_commands.command("check")
def persona_check(
    files: Annotated[list[Path] | None, typer.Argument(help="Files to check; all personas if left out.")] = None,
    config: ConfigOption = None,
) -> None:
    """Check persona files; exit 1 where one is wrong, naming file, line and column."""
    is_named = bool(files)
    if not files:
        folders = read_settings(config).persona_folders()
        files = [path for folder in folders for path in persona_files(folder)]
    has_problems = False
    for path in files:
        try:
            persona = read_persona(path)
        except InvalidPersona as error:
            if isinstance(error, NoPersona) and not is_named and path.suffix.lower() != ".charx":
                continue  # a picture beside the personas
            has_problems = True
            _print_problems(error.problems)
        else:
            output.print(f"[green]✓[/] {escape(str(path))}: {escape(persona.name)}")
    sys.exit(int(has_problems))


@persona_commands.command("new")
def persona_new(
    name: Annotated[str, typer.Argument(help="The character's name.")], config: ConfigOption = None
) -> None:
    """Write a commented persona file to start from."""
    path = new_persona(name, read_settings(config).personas[-1])
    output.print(f"Wrote {escape(str(path))}. A running Commedia picks it up as you edit it.")


@persona_commands.command("test")
def persona_test(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="Ids, names or files; all personas if left out.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all scores here.")] = None,
    replies: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write every reply here.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An earlier --json: exit 1 where a score became worse.")
    ] = None,
    only: Annotated[str, typer.Option(help="Of voice, facts, breaks, grounding, safety, drift, with commas.")] = "",
    repeats: Annotated[int, typer.Option(min=1, max=100, help="How often everything is asked.")] = 3,
    seed: Annotated[int | None, typer.Option(help="Make the replies repeatable; slower.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Ask a part of it, once.")] = False,
    without: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="Of coattention, lexicon, guard; may be repeated.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Nothing but the file's whole text as one system prompt.")
    ] = False,
    against_plain: Annotated[bool, typer.Option("--against-plain", help="Both, side by side.")] = False,
    judges: Annotated[
        bool, typer.Option("--judges", help="Only say how far the judges agree with a person's labels.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Score personas on the configured model; exit 1 where a file's threshold is missed (docs/persona-tests.md)."""
    from bot.scoring.command_line import Arguments, persona_test, test_judges

    settings = read_settings(config)
    configure_logging("warning", secrets=settings.secrets())
    if judges:
        test_judges(settings, json=json, output=output)
        return
    arguments = Arguments(
        names=tuple(names or ()), json=json, replies=replies, baseline=baseline, only=only, num_repeats=repeats,
        seed=seed, is_quick=quick, without=tuple(without or ()), is_plain=plain, has_plain_beside=against_plain,
    )  # fmt: skip
    sys.exit(persona_test(settings, arguments, before=partial(_bring_weights, settings), output=output, errors=errors))


class CardVersion(StrEnum):
    """A version of the character card specification."""

    V1 = "v1"
    V2 = "v2"
    V3 = "v3"


class CardContainer(StrEnum):
    """A kind of file that cards lie in."""

    JSON = "json"
    PNG = "png"
    CHARX = "charx"


_CARD_NUMBERS: dict[CardVersion, CardNumber] = {CardVersion.V1: 1, CardVersion.V2: 2, CardVersion.V3: 3}


@persona_commands.command("import")
def persona_import(
    files: Annotated[list[Path], typer.Argument(help="Character cards: .png, .json or .charx files.")],
    name: Annotated[str, typer.Option(metavar="ID", help="What to call it; made of its name if left out.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Let it take the place of a persona of that id.")] = False,
    config: ConfigOption = None,
) -> None:
    """Bring character cards into the personas folder; exit 1 where one is none."""
    if name and len(files) > 1:
        raise typer.BadParameter("several cards cannot have one id: leave --name out", param_hint="--name")
    folder = read_settings(config).personas[-1]
    has_problems = False
    for path in files:
        try:
            arrival = bring_in(read_bytes(path), file_name=path.name, folder=folder, name=name, overwrite=force)
        except PersonaError as error:
            has_problems = True
            errors.print(f"[bold red]✗[/] {escape(str(path))}: {escape(_with_force(error))}")
        else:
            _print_arrival(arrival)
    sys.exit(int(has_problems))


def _with_force(error: PersonaError) -> str:
    return f"{error}, or say --force" if isinstance(error, NameTaken) else str(error)


def _print_arrival(arrival: Arrival) -> None:
    persona = arrival.persona
    parts = ((persona.greetings, "greetings"), (persona.examples, "examples"), (persona.lore, "lore entries"))
    counts = ", ".join(f"{len(items)} {noun}" for items, noun in parts)
    output.print(f"[green]✓[/] {escape(str(arrival.path))}: {escape(persona.name)} ({persona.language}), {counts}")
    for warning in arrival.warnings:
        output.print(f"    [yellow]•[/] {escape(warning)}")


@persona_commands.command("export")
def persona_export(
    name: Annotated[str, typer.Argument(help="Id or name of the persona.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The card to write.")],
    version: Annotated[CardVersion, typer.Option("--format", help="Which version of the specification.")] = (
        CardVersion.V3
    ),
    container: Annotated[CardContainer | None, typer.Option(help="Told by FILE's ending if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    config: ConfigOption = None,
) -> None:
    """Write a persona as a character card, for SillyTavern and other programs."""
    folders = read_settings(config).persona_folders()
    library = PersonaLibrary(folders)
    library.load()
    persona = library.find(name) or library.get(name)
    found = (
        path for folder in reversed(folders) for path in persona_files(folder) if persona_id_of(path) == persona.id
    )
    card = card_of(next(found))
    number = _CARD_NUMBERS[version]
    lost = losses(card, number)
    data = write_card(to_version(card, number), _container(out, container))
    try:
        write_file(out, data, overwrite=force)
    except PersonaError as error:
        raise PersonaError(_with_force(error)) from None
    output.print(f"Wrote {escape(str(out))}: {escape(persona.name)}, {version.value}.")
    if card.assets and _container(out, container) == "json":
        output.print("    [yellow]•[/] JSON has no place for pictures; a .png or .charx takes them along.")
    if lost:
        output.print(f"    [yellow]•[/] v1 has no place for: {escape(', '.join(lost))}; --format v2 keeps all of it.")


def _container(path: Path, wanted: CardContainer | None) -> Container:
    if wanted is not None:
        return wanted.value
    by_suffix: dict[str, Container] = {".json": "json", ".png": "png", ".apng": "png", ".charx": "charx"}
    if path.suffix.lower() not in by_suffix:
        raise PersonaError(f"{path}: end its name in .json, .png or .charx, or say --container")
    return by_suffix[path.suffix.lower()]


@model_commands.command("list")
def models_list(config: ConfigOption = None) -> None:
    """List the weights that Commedia can bring by itself."""
    from engine.models.store import ModelStore

    table = Table("name", "what it is", "licence", "download", "here", box=None, pad_edge=False)
    for status in ModelStore(read_settings(config).cache_dir).list():
        model = status.model
        is_here = "yes" if status.is_ready else "no"
        table.add_row(model.name, model.about, model.licence, f"{model.num_bytes / 1e6:.0f} MB", is_here)
    Console().print(table)


@model_commands.command("fetch")
def models_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all if left out.")] = None,
    config: ConfigOption = None,
) -> None:
    """Bring weights into the cache: verified, and resumed where an earlier try stopped."""
    from engine.models.store import ModelStore

    store = ModelStore(read_settings(config).cache_dir)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    ) as bars:
        for name in names or [status.model.name for status in store.list()]:
            bar = bars.add_task(escape(name), total=None)
            folder = store.ensure(name, report=partial(_show_progress, bars, bar))
            size = sum(file.stat().st_size for file in folder.iterdir())
            bars.update(bar, description=f"{escape(name)}: ready", completed=size, total=size)


@database_commands.command("upgrade")
def database_upgrade(config: ConfigOption = None) -> None:
    """Bring the database to the newest schema; `commedia run` does it by itself."""
    from bot.app import prepare_home
    from bot.store.database import Database

    settings = read_settings(config)
    prepare_home(settings.home)

    async def upgrade() -> str | None:
        database = Database(settings.database_path)
        try:
            await database.upgrade()
            return await database.revision()
        finally:
            await database.aclose()

    output.print(f"{escape(str(settings.database_path))} is at revision {asyncio.run(upgrade())}.")


def _show_progress(bars: Progress, bar: TaskID, progress: "ModelProgress") -> None:
    bars.update(bar, description=escape(f"{progress.name}: {progress.step}"))
    if progress.total:
        bars.update(bar, completed=progress.done, total=progress.total)
    if progress.note:
        bars.console.print(escape(f"{progress.name}: {progress.note}"))


def _bring_weights(settings: Settings) -> None:
    """Fetch what is missing, in a process of its own: torch must stay in one thread, and its memory goes back."""
    from bot.app import require_installed, required_models
    from engine.models.store import ModelStore

    require_installed(settings)
    wanted = required_models(settings)
    is_ready = {status.model.name: status.is_ready for status in ModelStore(settings.cache_dir).list()}
    missing = [name for name in wanted if not is_ready[name]]
    if missing:
        errors.print(f"Bringing weights, once, into {escape(str(settings.cache_dir.absolute()))}:")
        environment = {**os.environ, "COMMEDIA_HOME": str(settings.home)}
        command = [sys.executable, "-m", "bot.cli", "models", "fetch", *missing]
        if (status := subprocess.run(command, env=environment).returncode) != 0:  # noqa: S603
            raise typer.Exit(status)


def _print_problems(problems: Iterable[PersonaProblem]) -> None:
    for problem in problems:
        errors.print(f"[bold red]✗[/] {escape(str(problem))}")


if __name__ == "__main__":
    main()
