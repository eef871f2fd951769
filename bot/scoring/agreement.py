"""How far the judges agree with people: each on replies that a person labelled (`labelled/`).

Owns the reading of the labels and the figures. Half of each set is for tuning; the other was labelled, or written,
before any judge had seen it, and is for measuring.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bot.personas.prompt import build_request
from bot.scoring.judges.breaks import find_break
from bot.scoring.judges.facts import judge_fact
from bot.scoring.judges.grounding import names_thing
from bot.scoring.judges.safety import judge_safety
from bot.scoring.judges.voice import LeaveOneOut, leave_one_out
from bot.scoring.pictures import names_of
from engine.persona import Fact, Persona
from engine.types import Role, SamplingSettings, Turn

FOLDER = Path(__file__).parent / "labelled"
TUNING, HELD_OUT = "tuning", "held out"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge beside a person. `precision` and `recall` are of what the judge says yes to; `kappa` is Cohen's: 1 is
    full agreement, 0 what chance would give. `num_yes` is how often the person says yes."""

    judge: str
    use: str
    num_replies: int
    num_yes: int
    accuracy: float
    precision: float
    recall: float
    kappa: float


def agreement_of(judge: str, use: str, pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    """Of pairs of what the judge and the person said; at least one."""
    both = sum(ours and theirs for ours, theirs in pairs)
    num_ours, num_yes, total = sum(ours for ours, _ in pairs), sum(theirs for _, theirs in pairs), len(pairs)
    accuracy = sum(ours == theirs for ours, theirs in pairs) / total
    by_chance = (num_ours * num_yes + (total - num_ours) * (total - num_yes)) / total**2
    kappa = (accuracy - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0
    return Agreement(
        judge,
        use,
        total,
        num_yes,
        accuracy,
        both / num_ours if num_ours else 0.0,
        both / num_yes if num_yes else 0.0,
        kappa,
    )


def measure_judges() -> list[Agreement]:
    """All judges that answer yes or no, on both halves."""
    measured = []
    for name, judge in _judges().items():
        rows = read_labelled(name)
        for use in (TUNING, HELD_OUT):
            pairs = [(judge(row), bool(row["label"])) for row in rows if row["use"] == use]
            measured.append(agreement_of(name, use, pairs))
    return measured


def disagreements(name: str, use: str) -> list[Row]:
    """The replies of a set on which its judge and the person differ: for tuning."""
    judge = _judges()[name]
    return [row for row in read_labelled(name) if row["use"] == use and judge(row) != row["label"]]


def read_labelled(name: str) -> list[Row]:
    """The rows of `labelled/NAME.jsonl`."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def labelled_cast() -> dict[str, Persona]:
    """The personas as they were when their replies were labelled."""
    return {row["id"]: Persona.model_validate(row) for row in read_labelled("cast")}


def measure_voices(cast: Sequence[Persona]) -> dict[str, LeaveOneOut]:
    """By language: how often a line of an author's own is told to be that persona's, by all other lines."""
    languages = sorted({persona.language.split("-")[0] for persona in cast})
    return {language: leave_one_out(cast, language) for language in languages}


def show_judges(measured: Iterable[Agreement], voices: dict[str, LeaveOneOut]) -> Table:
    """For people."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "replies", "yes", "accuracy", "precision", "recall", "kappa"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for one in measured:
        figures = (one.accuracy, one.precision, one.recall, one.kappa)
        table.add_row(
            f"{one.judge}, {one.use}", str(one.num_replies), str(one.num_yes), *(f"{figure:.2f}" for figure in figures)
        )
    for language, heard in voices.items():
        if heard.num_lines:
            chance = 1 / heard.num_voices
            right = heard.num_right / heard.num_lines
            table.add_row(f"voice, {language} (chance {chance:.2f})", str(heard.num_lines), "", f"{right:.2f}")
    return table


def judges_json(measured: Iterable[Agreement], voices: dict[str, LeaveOneOut]) -> dict[str, Any]:
    """For a file."""
    return {
        "judges": [asdict(one) for one in measured],
        "voices": {language: asdict(heard) for language, heard in voices.items()},
    }


def _judges() -> dict[str, Callable[[Row], bool]]:
    cast = labelled_cast()

    def is_break(row: Row) -> bool:
        persona, asked = cast[row["persona"]], row["asked"]
        request = build_request(persona, [Turn(Role.USER, asked)], sampling=SamplingSettings())
        found = find_break(row["reply"], asked=asked, persona=persona, system_prompt=request.system_prompt)
        return found is not None

    return {
        "facts": lambda row: (
            judge_fact(
                row["reply"],
                Fact(ask=row["ask"], expect=tuple(row["expect"]), avoid=tuple(row["avoid"])),
                language=row["language"],
            ).is_right
        ),
        "breaks": is_break,
        "grounding": lambda row: names_thing(
            row["reply"], names_of(row["picture"], row["language"]), language=row["language"]
        ),
        "safety": lambda row: judge_safety(row["reply"], kind=row["kind"], asked=row["asked"]).is_safe,
    }
