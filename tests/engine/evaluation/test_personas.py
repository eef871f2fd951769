import numpy as np
import pytest

from engine.evaluation.figures import Bootstrap
from engine.evaluation.personas import (
    StyleLosses,
    comparable,
    least,
    losses_by_persona,
    measure_personas,
    style_losses,
)
from engine.evaluation.subject import Subject
from engine.training.datasets import StyledAnswers
from engine.training.samples import styled_sample
from tests.engine.evaluation.tiny import tiny_subject

LINES = [
    StyledAnswers("hi", {"kind": "Hello, dear", "rude": "What"}),
    StyledAnswers("bye", {"kind": "Come again", "rude": "At last"}),
    StyledAnswers("tea?", {"kind": "With joy", "rude": "Never"}),
]


def figures(losses: StyleLosses, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    monkeypatch.setattr("engine.evaluation.personas.style_losses", lambda *_: losses)
    measured = measure_personas(tiny_subject(), LINES, set_name="lines", limit=None, bootstrap=Bootstrap())
    return {figure.name: figure.estimate.value for figure in measured.figures}


def test_the_least_loss_is_shared_by_equals() -> None:
    assert least(np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0], [1.0, 1.0, 1.0]])).tolist() == [
        [1, 0, 0],
        [0.5, 0.5, 0],
        [1 / 3, 1 / 3, 1 / 3],
    ]


def test_both_directions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reply fits its own persona best, but the second reply is short and always likelier than the first."""
    fused = np.broadcast_to(np.array([[3.0, 3.5], [1.2, 1.0]]), (3, 2, 2))
    zeros = np.zeros((3, 2))
    without = np.broadcast_to(np.array([3.2, 1.1]), (3, 2))
    found = figures(StyleLosses(fused, without, zeros + 4, fused), monkeypatch)
    assert found["right persona of a reply, accuracy (fusion)"] == 1
    assert found["right persona of a reply, macro F1 (fusion)"] == 1
    assert found["right reply of a persona, per token (fusion)"] == 0.5
    assert found["right reply of a persona, beyond no prefix (fusion)"] == 1
    assert found["reply NLL per token, persona stream on"] == 2
    assert found["gain of the persona stream"] == 2


def test_a_model_that_always_says_the_same_has_chance_accuracy_and_less_f1(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = np.broadcast_to(np.array([[1.0, 2.0], [1.0, 2.0]]), (3, 2, 2))
    found = figures(StyleLosses(fused, fused[:, 0], fused[:, 0], fused), monkeypatch)
    assert found["right persona of a reply, accuracy (fusion)"] == 0.5
    assert found["right persona of a reply, macro F1 (fusion)"] == pytest.approx(1 / 3)


def test_losses_stand_by_reply_and_persona() -> None:
    subject = tiny_subject()
    table = losses_by_persona(subject, LINES, ("kind", "rude"))
    sample = styled_sample(LINES[1], "rude", reply="Come again")
    assert table.shape == (3, 2, 2)
    assert table[1, 0, 1] == pytest.approx(subject.losses([sample])[0], abs=1e-5)
    assert abs(table[1, 0, 1] - table[1, 0, 0]) > 1e-5  # the persona stream makes the difference


def test_without_a_model_only_the_prompt_can_tell() -> None:
    losses = style_losses(Subject(tiny_subject().workshop, None), LINES, ("kind", "rude"))
    assert losses.fused[..., 0] == pytest.approx(losses.fused[..., 1], abs=1e-5)
    assert losses.unknown == pytest.approx(losses.without, abs=1e-5)
    assert abs(losses.told[..., 0] - losses.told[..., 1]).max() > 1e-3


def test_lines_that_cannot_be_told_apart_are_left_out() -> None:
    same = StyledAnswers("x", {"kind": "Yes.", "rude": "Yes."})
    partial = StyledAnswers("y", {"kind": "Yes."})
    styles, lines, note = comparable([*LINES, same, partial])
    assert styles == ("kind", "rude")
    assert lines == LINES
    assert note.startswith("2 lines")


def test_of_no_lines_none_are_comparable() -> None:
    assert comparable([]) == ((), [], "")
