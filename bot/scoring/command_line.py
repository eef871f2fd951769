"""`commedia persona test` as people see it: which personas and parts are meant, bars, tables, files, exit status.

Owns what is read from arguments and what is printed. Names the engine by `bot.app`, as the command line does.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps as json_text
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from bot.app import build_engine, chat_options, sampling_defaults
from bot.errors import SettingsError
from bot.guarding.engine import GuardedEngine
from bot.personas.library import PersonaLibrary
from bot.personas.reading import InvalidPersona, read_persona
from bot.personas.recall import Recall
from bot.scoring.agreement import judges_json, measure_judges, measure_voices, show_judges
from bot.scoring.checks import build_checks
from bot.scoring.command import PARTS, Progress, Run, Subject, Variant, score_personas
from bot.scoring.report import (
    Report,
    as_json,
    changes,
    failure_counts,
    heading,
    read_baseline,
    reply_lines,
    show,
    show_against_plain,
)
from bot.scoring.requests import BotRequests, PlainRequests
from bot.scoring.scores import CHECK_NAMES
from bot.scoring.trial import TrialOptions
from bot.settings import Settings
from engine.persona import Persona

# What has to be alike for two reports to compare.
_COMPARED = ("backend", "model", "is_plain", "is_quick", "without")
_FILE_SUFFIXES = (".yaml", ".yml", ".png", ".apng", ".json", ".charx")


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command's arguments as they were given."""

    names: tuple[str, ...] = ()
    json: Path | None = None
    replies: Path | None = None
    baseline: Path | None = None
    only: str = ""
    num_repeats: int = 3
    seed: int | None = None
    is_quick: bool = False
    without: tuple[str, ...] = ()
    is_plain: bool = False
    has_plain_beside: bool = False


def persona_test(
    settings: Settings, arguments: Arguments, *, before: Callable[[], None], output: Console, errors: Console
) -> int:
    """Test, print and write. `before` brings what the engine needs. Returns the exit status: 1 where a threshold is
    missed, a score became worse, or a reply failed. Raises `typer.BadParameter` for what was not meant so."""
    checks = _chosen(arguments.only, CHECK_NAMES, "--only")
    without = _chosen(",".join(arguments.without), PARTS, "--without") if arguments.without else ()
    if arguments.is_plain and (arguments.has_plain_beside or without):
        raise typer.BadParameter("goes with neither --against-plain nor --without", param_hint="--plain")
    baseline = _baseline(arguments.baseline) if arguments.baseline else None
    for path, option in ((arguments.json, "--json"), (arguments.replies, "--replies")):
        if path is not None:
            _require_writable(path, option)
    library = PersonaLibrary(settings.persona_folders())
    library.load()  # which logs what is wrong with other files
    personas = _personas(library, arguments.names)
    before()
    run = Run(
        personas,
        build_checks(checks, library.all(), is_quick=arguments.is_quick),
        TrialOptions(1 if arguments.is_quick else arguments.num_repeats, arguments.seed),
        Variant(frozenset(without), arguments.is_plain),
        arguments.has_plain_beside,
        {"backend": settings.engine.backend, "model": _model(settings), "is_quick": arguments.is_quick},
    )
    report = asyncio.run(_tested(run, settings, errors))
    _print(report, output, errors)
    _write(report, arguments)
    has_worse = baseline is not None and _print_changes(report, baseline, output)
    failures = [*report.failures, *(report.plain.failures if report.plain else ())]
    return int(bool(report.missed() or failures or has_worse))


def test_judges(settings: Settings, *, json: Path | None, output: Console) -> None:
    """Say how far the judges agree with a person's labels, and how well the voices of all personas are told apart."""
    library = PersonaLibrary(settings.persona_folders())
    library.load()
    measured, voices = measure_judges(), measure_voices(library.all())
    output.print("[bold]judges beside a person's labels[/]")
    Console(file=output.file).print(show_judges(measured, voices))
    if json is not None:
        _write_text(json, json_text(judges_json(measured, voices), ensure_ascii=False, indent=2) + "\n")


async def _tested(run: Run, settings: Settings, errors: Console) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=errors) as bars:
        bar = bars.add_task("", total=None)

        def on_step(text: str, total: int | None) -> None:
            bars.reset(bar, description=text, total=total)

        progress = Progress(on_step, lambda: bars.advance(bar))
        return await score_personas(run, lambda variant: _subject(settings, variant), progress=progress)


def _model(settings: Settings) -> str:
    is_elsewhere = settings.engine.backend in ("openai", "vllm")
    if settings.engine.backend == "echo":
        return "echo"
    return settings.engine.model or "the server's model" if is_elsewhere else settings.engine.decoder


def _subject(settings: Settings, variant: Variant) -> Subject:
    changed: dict[str, Any] = {"lexicon": variant.has("lexicon") and settings.engine.lexicon}
    if not variant.has("coattention"):
        changed["fusion"] = "none"
    engine = build_engine(settings.model_copy(update={"engine": settings.engine.model_copy(update=changed)}))
    sampling, max_turns = sampling_defaults(settings), settings.chat.max_history_turns
    if variant.is_plain:
        return Subject(engine, PlainRequests(sampling, max_turns))
    recall, house = Recall(engine), chat_options(settings).house
    requests = BotRequests(sampling, engine, recall, house, max_turns)
    is_guarded = variant.has("guard") and settings.chat.guard
    guarded = GuardedEngine(engine, max_tries=settings.chat.guard_tries) if is_guarded else engine
    return Subject(guarded, requests, recall.aclose)


def _chosen(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """The words of `text`, all of `known` where there are none."""
    named = [word.strip().casefold() for word in text.split(",") if word.strip()]
    for word in named:
        if word not in known:
            raise typer.BadParameter(f"there is no {word!r}; there are: {', '.join(known)}", param_hint=option)
    return tuple(name for name in known if name in named) if named else tuple(known)


def _personas(library: PersonaLibrary, names: Sequence[str]) -> list[Persona]:
    """Who is meant: an existing file goes before a name."""
    if not names:
        if not library.all():
            raise SettingsError("There is no persona to test: `commedia persona new NAME` writes one.")
        return list(library.all())
    found = [_persona(library, name) for name in names]
    return list({persona.id: persona for persona in found}.values())


def _persona(library: PersonaLibrary, name: str) -> Persona:
    path = Path(name)
    if path.suffix.lower() in _FILE_SUFFIXES:
        try:
            return read_persona(path)
        except InvalidPersona as error:
            raise typer.BadParameter(str(error), param_hint="NAME") from None
    persona = library.find(name)
    if persona is None:
        known = ", ".join(persona.id for persona in library.all())
        raise typer.BadParameter(f"no persona is called {name!r}; there are: {known or 'none'}", param_hint="NAME")
    return persona


def _print(report: Report, output: Console, errors: Console) -> None:
    tables = Console(file=output.file)
    for run in filter(None, (report, report.plain)):
        output.print(f"[bold]{escape(heading(run))}[/]", highlight=False)
        tables.print(show(run))
        output.print()
    if report.plain is not None:
        output.print("[bold]against one plain prompt of the same text[/]")
        tables.print(show_against_plain(report))
        output.print()
    for line in report.missed():
        errors.print(f"[bold red]✗[/] {escape(line)}")
    for line in report.idle():
        errors.print(escape(line))
    for run in filter(None, (report, report.plain)):
        for reason, number in failure_counts(run.failures).items():
            noun = "reply" if number == 1 else "replies"
            errors.print(f"[bold red]{number} {noun} failed:[/] {escape(reason)}")
    without_facts = [persona.name for persona in report.personas if not persona.scores]
    if without_facts:
        errors.print(f"Nothing to test in {escape(', '.join(without_facts))}: write facts (docs/persona-tests.md).")


def _print_changes(report: Report, baseline: Mapping[str, Any], output: Console) -> bool:
    found = changes(report, baseline)
    for change in found:
        if change.is_worse:
            output.print(
                f"[bold red]worse:[/] {escape(change.persona)}: {change.check} {change.before:.2f} → {change.now:.2f}"
            )
    earlier = baseline.get("setup")
    others = [key for key in _COMPARED if isinstance(earlier, dict) and earlier.get(key) != report.setup.get(key)]
    if others:
        output.print(f"[yellow]The earlier report was made otherwise:[/] {', '.join(others)}.", highlight=False)
    num_worse = sum(change.is_worse for change in found)
    output.print(f"{len(found)} scores compared with the earlier report, {num_worse} worse.", highlight=False)
    return num_worse > 0


def _write(report: Report, arguments: Arguments) -> None:
    if arguments.json is not None:
        _write_text(arguments.json, json_text(as_json(report), ensure_ascii=False, indent=2) + "\n")
    if arguments.replies is not None:
        _write_text(arguments.replies, "".join(f"{line}\n" for line in reply_lines(report)))


def _baseline(path: Path) -> Mapping[str, Any]:
    try:
        return read_baseline(path)
    except SettingsError as error:
        raise typer.BadParameter(str(error), param_hint="--baseline") from None


def _require_writable(path: Path, option: str) -> None:
    """Found out before the asking, which takes long; whoever stops that finds no empty file."""
    is_new = not path.exists()
    try:
        path.open("a").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint=option) from None


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}. Name another file.") from None
