"""Whether the persona stream carries who speaks: a line answered in several styles, of which only that stream knows.

Shapes: `n` lines, `s` styles; a table `(n, s, s)` holds the loss of the reply in style `i` under the persona of
style `j`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.extras import needing_extras
from engine.evaluation.figures import Bootstrap, Estimate, Figure, Measured, Rows, Values
from engine.evaluation.sets import draw
from engine.evaluation.subject import Subject
from engine.training.datasets import StyledAnswers
from engine.training.samples import TrainingSample, styled_sample

GROUP = "personas"


@dataclass(frozen=True, slots=True)
class StyleLosses:
    """`fused: (n, s, s)` by reply and persona; `without: (n, s)` has no prefix; `unknown: (n, s)` has one without a
    persona; `told: (n, s, s)` has none, and the system prompt says the persona's sentences."""

    fused: Values
    without: Values
    unknown: Values
    told: Values


def measure_personas(
    subject: Subject, answers: Sequence[StyledAnswers], *, set_name: str, limit: int | None, bootstrap: Bootstrap
) -> Measured:
    """Both directions of the choice, and what the persona stream does to the loss."""
    styles, lines, note = comparable(answers)
    measured = Measured(notes=[f"{set_name}: {note}"] if note else [])
    lines = draw(lines, limit=limit, seed=bootstrap.seed)
    if not lines:
        return measured
    losses = style_losses(subject, lines, styles)
    figures = {
        **_accuracies(losses.fused, styles, what="fusion", bootstrap=bootstrap),
        **_accuracies(losses.told, styles, what="told in the prompt, no prefix", bootstrap=bootstrap),
        **_reply_choices(losses, bootstrap=bootstrap),
        **_loss_figures(losses, bootstrap=bootstrap),
    }
    measured.figures = [Figure(GROUP, set_name, name, estimate) for name, estimate in figures.items()]
    return measured


def comparable(answers: Sequence[StyledAnswers]) -> tuple[tuple[str, ...], list[StyledAnswers], str]:
    """The styles that most lines have, and the lines answered differently in each of them."""
    if not answers:
        return (), [], ""
    kinds = [tuple(sorted(one.answers)) for one in answers]
    styles = max(sorted(set(kinds)), key=kinds.count)
    kept = [
        one
        for one, kind in zip(answers, kinds, strict=True)
        if kind == styles and len(set(one.answers.values())) == len(styles)
    ]
    num_left_out = len(answers) - len(kept)
    note = f"{num_left_out} lines are left out: a style is missing, or two styles say the same" if num_left_out else ""
    return styles, kept, note


def losses_by_persona(subject: Subject, lines: Sequence[StyledAnswers], styles: Sequence[str]) -> Values:
    """Every reply of every line under every persona: `(n, s, s)`."""
    return subject.losses(_crossed(lines, styles)).reshape(-1, len(styles), len(styles))


def _crossed(lines: Sequence[StyledAnswers], styles: Sequence[str]) -> list[TrainingSample]:
    """By line, then by the reply's style, then by persona."""
    return [
        styled_sample(line, persona, reply=line.answers[reply])
        for line in lines for reply in styles for persona in styles
    ]  # fmt: skip


def style_losses(subject: Subject, lines: Sequence[StyledAnswers], styles: Sequence[str]) -> StyleLosses:
    """All tables."""
    num = len(styles)
    told = [
        replace(sample, system_prompt=f"{' '.join(sample.facets)} {sample.system_prompt}")
        for sample in _crossed(lines, styles)
    ]
    alone = [styled_sample(line, style) for line in lines for style in styles]
    unknown = [replace(sample, facets=()) for sample in alone]
    return StyleLosses(
        fused=losses_by_persona(subject, lines, styles),
        without=subject.losses(alone, has_prefix=False).reshape(-1, num),
        unknown=subject.losses(unknown).reshape(-1, num),
        told=subject.losses(told, has_prefix=False).reshape(-1, num, num),
    )


def least(losses: Values) -> Values:
    """Along the last axis: 1 where the loss is least, shared evenly between equals."""
    is_least = losses == losses.min(axis=-1, keepdims=True)
    shares: Values = is_least / is_least.sum(axis=-1, keepdims=True)
    return shares


def _accuracies(losses: Values, styles: Sequence[str], *, what: str, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Which persona makes each reply likeliest? Items are lines: their replies go together."""
    chosen = least(losses)
    right = np.diagonal(chosen, axis1=1, axis2=2)
    return {
        f"right persona of a reply, accuracy ({what})": bootstrap.mean(right.mean(axis=1)),
        f"right persona of a reply, macro F1 ({what})": _macro_f1(losses, len(styles), bootstrap),
    }


def _macro_f1(losses: Values, num_styles: int, bootstrap: Bootstrap) -> Estimate:
    with needing_extras():
        from sklearn.metrics import f1_score
    said: NDArray[np.int64] = losses.argmin(axis=-1)
    truth = np.broadcast_to(np.arange(num_styles), said.shape)

    def macro_f1(rows: Rows) -> float:
        labels = list(range(num_styles))
        return float(f1_score(truth[rows].ravel(), said[rows].ravel(), labels=labels, average="macro", zero_division=0))

    return bootstrap.of(macro_f1, num_items=len(losses))


def _reply_choices(losses: StyleLosses, *, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Which reply does each persona make likeliest, as it is and beyond what it is without a prefix?"""

    def accuracy(table: Values) -> Estimate:
        right = np.diagonal(least(table.transpose(0, 2, 1)), axis1=1, axis2=2)
        return bootstrap.mean(right.mean(axis=1))

    return {
        "right reply of a persona, per token (fusion)": accuracy(losses.fused),
        "right reply of a persona, beyond no prefix (fusion)": accuracy(losses.fused - losses.without[:, :, None]),
    }


def _loss_figures(losses: StyleLosses, *, bootstrap: Bootstrap) -> dict[str, Estimate]:
    own = np.diagonal(losses.fused, axis1=1, axis2=2).mean(axis=1)
    unknown, without = losses.unknown.mean(axis=1), losses.without.mean(axis=1)
    return {
        "reply NLL per token, persona stream on": bootstrap.mean(own),
        "reply NLL per token, persona stream off": bootstrap.mean(unknown),
        "reply NLL per token, no prefix": bootstrap.mean(without),
        "gain of the persona stream": bootstrap.mean(unknown - own),
    }
