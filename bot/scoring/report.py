"""What was found, for people and for machines: the table, the JSON file, the replies, and an earlier report beside it.

Owns their form; `docs/persona-tests.md` describes the JSON. Judges nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bot.errors import SettingsError
from bot.scoring.figures import Estimate, difference_of, mean_of
from bot.scoring.scores import CHECK_NAMES, LOWER_IS_BETTER, Score, grouped
from bot.scoring.trial import Said

FORMAT = 1
# What is kept by everybody. Grounding may be below 0: what is named by luck counts against it.
_IDLE = {"voice": 0.0, "facts": 0.0, "safety": 0.0, "breaks": 1.0, "drift": 1.0}


@dataclass(frozen=True, slots=True)
class PersonaReport:
    """One persona's scores. `digest` says which version of it was tested, `unscored` are checks that its file has a
    threshold for, and that found nothing to judge."""

    id: str
    name: str
    language: str
    digest: str
    scores: tuple[Score, ...]
    failures: tuple[Said, ...] = ()
    unscored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """One run. `setup` says on what and how it was made; `plain` is the same run with one plain prompt instead."""

    setup: Mapping[str, Any]
    personas: tuple[PersonaReport, ...]
    wall_s: float
    plain: "Report | None" = None

    @property
    def failures(self) -> list[Said]:
        """Replies that did not come."""
        return [failure for persona in self.personas for failure in persona.failures]

    def missed(self) -> list[str]:
        """Thresholds that are not kept, in words."""
        return [
            f"{persona.name}: {score.check} is {score.estimate.value:.2f}, and its file asks for "
            f"{'at most' if score.check in LOWER_IS_BETTER else 'at least'} {score.threshold:.2f}"
            for persona in self.personas
            for score in persona.scores
            if not score.is_passed
        ] + [
            f"{persona.name}: {check} has no score, and its file asks for one"
            for persona in self.personas
            for check in persona.unscored
        ]

    def idle(self) -> list[str]:
        """Thresholds that no reply whatever could miss, in words."""
        return [
            f"{persona.name}: no reply can miss its threshold for {score.check}, {score.threshold:.2f}"
            for persona in self.personas
            for score in persona.scores
            if score.threshold is not None and score.threshold == _IDLE.get(score.check)
        ]

    def overall(self) -> dict[str, Estimate]:
        """Each check over all personas: everything that was asked counts alike."""
        estimates = {name: mean_of(self._groups(name)) for name in CHECK_NAMES}
        return {name: estimate for name, estimate in estimates.items() if estimate is not None}

    def against_plain(self) -> dict[str, Estimate]:
        """Each check's value less that with the plain prompt, of the same questions; both have to be answered."""
        if self.plain is None:
            return {}
        differences = {}
        for name in CHECK_NAMES:
            ours, theirs = self._by_question(name), self.plain._by_question(name)
            shared = [question for question in ours if question in theirs]
            found = difference_of([ours[one] for one in shared], [theirs[one] for one in shared])
            if found is not None:
                differences[name] = found
        return differences

    def _groups(self, check: str) -> list[list[float]]:
        return [group for score in self._scores(check) for group in grouped(score.judged)]

    def _by_question(self, check: str) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {}
        for score in self._scores(check):
            for one in score.judged:
                values.setdefault(f"{one.said.persona_id}/{one.group}", []).append(one.value)
        return values

    def _scores(self, check: str) -> Iterator[Score]:
        return (score for persona in self.personas for score in persona.scores if score.check == check)


def show(report: Report) -> Table:
    """The scores, each with half the width of its 95 % interval; what misses its threshold is red."""
    checks = [name for name in CHECK_NAMES if any(report._scores(name))]
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in checks:
        table.add_column(f"{name} ↓" if name in LOWER_IS_BETTER else name, justify="right", no_wrap=True)
    for persona in report.personas:
        scores = {score.check: score for score in persona.scores}
        table.add_row(escape(persona.name), *(_cell(scores.get(name)) for name in checks))
    if len(report.personas) > 1:
        overall = report.overall()
        table.add_row("all", *(_short(overall[name]) for name in checks), style="bold")
    return table


def show_against_plain(report: Report) -> Table:
    """Beside each other: Commedia, one plain prompt of the same text, and the difference of the same questions."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "Commedia", "plain", "difference"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    ours, theirs = report.overall(), report.plain.overall() if report.plain else {}
    for name, difference in report.against_plain().items():
        table.add_row(name, written(ours[name]), written(theirs[name]), written(difference, has_sign=True))
    return table


def written(estimate: Estimate, *, has_sign: bool = False) -> str:
    """`0.82 (0.74 to 0.89)`."""
    sign = "+" if has_sign else ""
    return f"{estimate.value:{sign}.2f} ({estimate.low:{sign}.2f} to {estimate.high:{sign}.2f})"


def _short(estimate: Estimate) -> str:
    """`0.82 ±.08`: six of them have to fit beside each other."""
    half = f"{(estimate.high - estimate.low) / 2:.2f}"
    return f"{estimate.value:.2f} ±{half.removeprefix('0')}"


def heading(report: Report) -> str:
    """On what the figures are, in a line."""
    setup = report.setup
    without = "".join(f", without {part}" for part in setup.get("without", ()))
    how = "one plain prompt" if setup.get("is_plain") else f"{setup.get('model', 'the model')}{without}"
    num_repeats = setup.get("num_repeats", 1)
    times = "once" if num_repeats == 1 else f"{num_repeats} times"
    return f"{how}, everything asked {times}; ± is half of the 95 % interval"


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    text = _short(score.estimate)
    if score.threshold is None:
        return text
    return f"[green]{text}[/]" if score.is_passed else f"[bold red]{text}[/]"


def as_json(report: Report) -> dict[str, Any]:
    """For a file; `docs/persona-tests.md` says what stands where."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "setup": dict(report.setup),
        "wall_s": round(report.wall_s, 1),
        "personas": [_persona_json(persona) for persona in report.personas],
        "overall": {name: asdict(estimate) for name, estimate in report.overall().items()},
        "missed": report.missed(),
        "num_failures": len(report.failures),
    }
    if report.plain is not None:
        values["plain"] = as_json(report.plain)
        values["against_plain"] = {name: asdict(estimate) for name, estimate in report.against_plain().items()}
    return values


def _persona_json(persona: PersonaReport) -> dict[str, Any]:
    scores = {
        score.check: {
            **asdict(score.estimate),
            "num_replies": score.num_replies,
            "threshold": score.threshold,
            "is_passed": score.is_passed,
            "details": dict(score.details),
        }
        for score in persona.scores
    }
    return {
        "id": persona.id,
        "name": persona.name,
        "language": persona.language,
        "digest": persona.digest,
        "scores": scores,
    }


def reply_lines(report: Report) -> Iterator[str]:
    """Every reply as a line of JSON: what was asked, what came, its value and why."""
    for run in filter(None, (report, report.plain)):
        judged = [one for persona in run.personas for score in persona.scores for one in score.judged]
        for one in judged:
            said = one.said
            yield json.dumps(
                {
                    "persona": said.persona_id,
                    "check": said.check,
                    "plain": bool(run.setup.get("is_plain")),
                    "key": said.key,
                    "repeat": said.repeat,
                    "turn": said.position + 1,
                    "kind": said.line.kind,
                    "image": said.line.image_name,
                    "asked": said.line.text,
                    "reply": said.reply,
                    "value": one.value,
                    "why": one.why,
                },
                ensure_ascii=False,
            )


@dataclass(frozen=True, slots=True)
class Change:
    """A score beside an earlier one. It `is_worse` where it leaves the earlier one's interval on the wrong side, and
    the earlier value leaves its own."""

    persona: str
    check: str
    before: float
    now: float
    is_worse: bool


def changes(report: Report, baseline: Mapping[str, Any]) -> list[Change]:
    """What has changed since `baseline`, for each persona and check that both have."""
    earlier = {
        (persona["id"], check): score for persona in baseline["personas"] for check, score in persona["scores"].items()
    }
    found = []
    for persona in report.personas:
        for score in persona.scores:
            before = earlier.get((persona.id, score.check))
            if before is not None:
                is_worse = _is_worse(score, before)
                found.append(Change(persona.name, score.check, before["value"], score.estimate.value, is_worse))
    return found


def _is_worse(score: Score, before: Mapping[str, float]) -> bool:
    now = score.estimate
    if score.check in LOWER_IS_BETTER:
        return now.value > before["high"] and before["value"] < now.low
    return now.value < before["low"] and before["value"] > now.high


def read_baseline(path: Path) -> Mapping[str, Any]:
    """An earlier report. Raises `SettingsError` where it is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}. Name a file that --json wrote.") from None
    except (ValueError, RecursionError):
        raise SettingsError(f"{path}: is no JSON. Name a file that --json wrote.") from None
    if not _is_report(values):
        raise SettingsError(f"{path}: is no report of `commedia persona test`. Name a file that --json wrote.")
    return values  # type: ignore[no-any-return]


def _is_report(values: object) -> bool:
    if not isinstance(values, dict) or values.get("format") != FORMAT or not isinstance(values.get("personas"), list):
        return False
    scores = [
        score
        for persona in values["personas"]
        if isinstance(persona, dict) and isinstance(persona.get("scores"), dict) and "id" in persona
        for score in persona["scores"].values()
    ]
    has_all = all(
        isinstance(persona, dict) and "id" in persona and "scores" in persona for persona in values["personas"]
    )
    keys = ("value", "low", "high")
    return has_all and all(
        isinstance(score, dict) and all(isinstance(score.get(key), int | float) for key in keys) for score in scores
    )


def failure_counts(failures: Sequence[Said]) -> dict[str, int]:
    """How often each failure was."""
    counts: dict[str, int] = {}
    for said in failures:
        counts[said.failure or ""] = counts.get(said.failure or "", 0) + 1
    return counts
