import pytest

from engine.evaluation.dialogues import dialogue_samples, measure_dialogues
from engine.evaluation.figures import Bootstrap
from engine.evaluation.subject import Subject
from engine.training.datasets import PersonaDialogue
from tests.engine.evaluation.tiny import tiny_subject

TALKS = [
    PersonaDialogue(((f"I have {j} dogs.", "I ski."), (f"i am {word}",)), ((0, "Hi!"), (1, f"Hello from {j}")))
    for j, word in enumerate(("kind", "a dog", "a pizza"))
]


def figures(subject: Subject) -> dict[str, float]:
    measured = measure_dialogues(subject, TALKS, set_name="talks", limit=None, bootstrap=Bootstrap())
    return {figure.name: figure.estimate.value for figure in measured.figures}


def test_what_the_prompt_tells_does_not_change_which_turn_is_measured() -> None:
    untold, told = (dialogue_samples(TALKS, num_told=num, seed=4) for num in (0, 9))
    assert [sample.reply for sample in untold] == [sample.reply for sample in told]
    assert "i am a dog" in told[1].system_prompt
    assert "i am a dog" not in untold[1].system_prompt


def test_gains_are_differences_of_losses() -> None:
    found = figures(tiny_subject())
    for told in ("nothing told", "everything told"):
        on, off, stranger = (
            found[f"reply NLL per token, {what} ({told})"]
            for what in ("persona stream on", "persona stream off", "a stranger's persona")
        )
        assert len({on, off, stranger}) == 3
        assert found[f"gain of the persona stream ({told})"] == pytest.approx(off - on)
        assert found[f"gain of the own persona over a stranger's ({told})"] == pytest.approx(stranger - on)


def test_without_a_model_no_persona_makes_a_difference() -> None:
    found = figures(Subject(tiny_subject().workshop, None))
    assert all(value == pytest.approx(0, abs=1e-5) for name, value in found.items() if name.startswith("gain"))
