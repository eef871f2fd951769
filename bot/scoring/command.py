"""One run of `commedia persona test`: engines one after the other, checks, scores.

Owns the order of things and what a variant means. Which engine that is, and what the files are, the caller knows.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.scoring.report import PersonaReport, Report
from bot.scoring.requests import RequestWriter
from bot.scoring.scores import Check, score_of
from bot.scoring.trial import Said, TrialOptions, ask_all, num_replies
from engine.persona import Persona
from engine.types import ReplyEngine

PARTS = ("coattention", "lexicon", "guard")


@dataclass(frozen=True, slots=True)
class Variant:
    """What stands between the model and the persona. `is_plain`: nothing but one plain prompt."""

    without: frozenset[str] = frozenset()
    is_plain: bool = False

    def has(self, part: str) -> bool:
        """Whether `part`, one of `PARTS`, is at work."""
        return not self.is_plain and part not in self.without


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tested: an engine that was not started, and how it is asked. `aclose` ends what is beside the engine."""

    engine: ReplyEngine
    requests: RequestWriter
    aclose: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Whom to tell how far it is."""

    on_step: Callable[[str, int | None], None] = lambda _text, _total: None
    on_reply: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run is made of. `setup` goes into the report as it is."""

    personas: Sequence[Persona]
    checks: Sequence[Check]
    options: TrialOptions
    variant: Variant = Variant()
    has_plain_beside: bool = False
    setup: dict[str, Any] = field(default_factory=dict)


async def score_personas(
    run: Run, subject_of: Callable[[Variant], Subject], *, progress: Progress | None = None
) -> Report:
    """Ask and judge. Raises `EngineError` where an engine cannot start; a reply that fails is in the report."""
    progress = progress or Progress()
    report = await _scored(run, run.variant, subject_of, progress)
    if not run.has_plain_beside:
        return report
    plain = await _scored(run, Variant(is_plain=True), subject_of, progress)
    return Report(report.setup, report.personas, report.wall_s, plain)


async def _scored(run: Run, variant: Variant, subject_of: Callable[[Variant], Subject], progress: Progress) -> Report:
    scripts = [
        (persona, script) for persona in run.personas for check in run.checks for script in check.scripts(persona)
    ]
    subject = subject_of(variant)
    engine = subject.engine
    progress.on_step("loading the model", None)
    try:
        await engine.start()
        what = "asking, with one plain prompt" if variant.is_plain else "asking"
        progress.on_step(what, num_replies(scripts, run.options))
        began = time.perf_counter()
        said = await ask_all(engine, subject.requests, scripts, run.options, on_reply=progress.on_reply)
        wall_s = time.perf_counter() - began
        setup = {**run.setup, **_described(variant, run.options), "device": engine.load().device}
    finally:
        if subject.aclose is not None:
            await subject.aclose()
        await engine.aclose()
    return Report(setup, tuple(_persona_report(run.checks, persona, said) for persona in run.personas), wall_s)


def _described(variant: Variant, options: TrialOptions) -> dict[str, Any]:
    return {
        "is_plain": variant.is_plain,
        "without": sorted(variant.without),
        "num_repeats": options.num_repeats,
        "seed": options.seed,
    }


def _persona_report(checks: Sequence[Check], persona: Persona, said: Sequence[Said]) -> PersonaReport:
    own = [one for one in said if one.persona_id == persona.id]
    scores = [score_of(check, persona, [one for one in own if one.check == check.name]) for check in checks]
    asked = persona.tests.thresholds
    return PersonaReport(
        persona.id,
        persona.name,
        persona.language,
        persona.digest(),
        tuple(score for score in scores if score is not None),
        tuple(one for one in own if one.failure is not None),
        tuple(
            check.name
            for check, score in zip(checks, scores, strict=True)
            if score is None and getattr(asked, check.name) is not None
        ),
    )
