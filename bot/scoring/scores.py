"""From replies to scores: one value a reply, one estimate a check and persona, and whether it is enough.

Owns the words `Judged`, `Score` and `Check`. Knows neither engines nor how any judge works.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bot.scoring.figures import Estimate, mean_of
from bot.scoring.trial import Said, Script
from engine.persona import Persona

CHECK_NAMES = ("voice", "facts", "breaks", "grounding", "safety", "drift")
LOWER_IS_BETTER = frozenset({"breaks", "drift"})


@dataclass(frozen=True, slots=True)
class Judged:
    """A reply with its value, mostly 1 or 0, and why. `group` is what it is resampled with: what was asked."""

    said: Said
    value: float
    why: str
    group: str


@dataclass(frozen=True, slots=True)
class Score:
    """How a persona did in one check. `details` are further figures; `threshold` is what its author asks for."""

    check: str
    estimate: Estimate
    num_replies: int
    threshold: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    judged: tuple[Judged, ...] = field(default=(), repr=False)

    @property
    def is_passed(self) -> bool:
        """Whether the threshold is kept; true where there is none."""
        if self.threshold is None:
            return True
        value = self.estimate.value
        return value <= self.threshold if self.check in LOWER_IS_BETTER else value >= self.threshold


class Check(Protocol):
    """One thing that a persona is tested for: a name of `CHECK_NAMES`."""

    @property
    def name(self) -> str:
        """What `--only` calls it."""

    def scripts(self, persona: Persona) -> Sequence[Script]:
        """What is said to `persona`; nothing where there is nothing to test it by."""

    def judge(self, persona: Persona, said: Sequence[Said]) -> Sequence[Judged]:
        """A value for every reply that counts."""

    def details(self, persona: Persona, judged: Sequence[Judged]) -> Mapping[str, float]:
        """Further figures for people to read."""


def score_of(check: Check, persona: Persona, said: Iterable[Said]) -> Score | None:
    """How `persona` did; `None` where nothing was said."""
    judged = tuple(check.judge(persona, [one for one in said if one.failure is None]))
    estimate = mean_of(grouped(judged))
    if estimate is None:
        return None
    threshold: float | None = getattr(persona.tests.thresholds, check.name)
    return Score(check.name, estimate, len(judged), threshold, check.details(persona, judged), judged)


def grouped(judged: Iterable[Judged]) -> list[list[float]]:
    """The values of what was asked alike, together; in the order of `judged`."""
    groups: dict[str, list[float]] = {}
    for one in judged:
        groups.setdefault(f"{one.said.persona_id}/{one.group}", []).append(one.value)
    return list(groups.values())
