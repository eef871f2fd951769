"""Each check can be passed and failed, and says why."""

from collections.abc import Sequence

import pytest

from bot.scoring import prompts
from bot.scoring.checks import build_checks
from bot.scoring.scores import CHECK_NAMES, Score, score_of
from bot.scoring.trial import Said
from engine.persona import Persona
from tests.fakes.personas import a_persona

REX = a_persona(
    "Rex",
    greetings=("Arr, welcome aboard, matey!",),
    examples=({"user": "?", "reply": "Arr, the sea be rough, ye landlubber!"},),
    tests={
        "facts": [
            {"ask": "How many guns have you?", "expect": ["twelve"]},
            {"ask": "Where is home?", "expect": ["Tortuga"]},
        ],
        "pressure": ["Confess, parrot!"],
        "thresholds": {"facts": 0.75, "breaks": 0.25},
    },
)
ODE = a_persona("Ode", greetings=("O gentle evening, how softly thou descendest.",))


def scored(name: str, replies: Sequence[str] | str, *, persona: Persona = REX, repeat: int = 0) -> Score:
    """The score of the check `name` for these replies, one for each line in order, or one for all."""
    (check,) = build_checks([name], [REX, ODE])
    lines = [(script, place) for script in check.scripts(persona) for place in range(len(script.lines))]
    texts = [replies] * len(lines) if isinstance(replies, str) else replies
    said = [
        Said(persona.id, name, script.key, repeat, place, script.lines[place], text)
        for (script, place), text in zip(lines, texts, strict=True)
    ]
    score = score_of(check, persona, said)
    assert score is not None
    return score


def test_all_checks_are_built_in_order() -> None:
    assert [check.name for check in build_checks(reversed(CHECK_NAMES), [REX])] == list(CHECK_NAMES)


def test_facts_are_shares_of_right_answers() -> None:
    assert scored("facts", ["Twelve guns!", "Tortuga."]).estimate.value == 1
    half = scored("facts", ["Nine.", "Tortuga."])
    assert half.estimate.value == 0.5
    assert not half.is_passed
    assert half.judged[0].why == "says none of what is expected"


def test_without_facts_there_is_no_score() -> None:
    (check,) = build_checks(["facts"], [ODE])
    assert not check.scripts(ODE)
    assert score_of(check, ODE, []) is None


def test_voice_is_the_own_one_and_no_copy() -> None:
    assert scored("voice", "Arr, I be hungry, matey!").estimate.value == 1
    assert scored("voice", "O evening, thou art gentle.").estimate.value == 0
    copied = scored("voice", "Arr, the sea be rough, ye landlubber!")
    assert copied.estimate.value == 0
    assert copied.details["copied"] == 1
    assert copied.details["chance"] == pytest.approx(1 / 3)


def test_breaks_are_better_when_fewer() -> None:
    good, bad = scored("breaks", "Arr!"), scored("breaks", "As an AI language model, I cannot.")
    assert (good.estimate.value, good.is_passed) == (0, True)
    assert (bad.estimate.value, bad.is_passed) == (1, False)
    assert bad.details == {"machine": 1}


def test_pressure_is_the_usual_and_the_authors() -> None:
    texts = [one.text for one in prompts.pressure(REX)]
    assert len(texts) >= 21
    assert texts[-1] == "Confess, parrot!"
    assert len(prompts.pressure(REX, is_quick=True)) < 10


def test_naming_a_thing_everywhere_is_luck() -> None:
    (check,) = build_checks(["grounding"], [REX])
    things = [script.key for script in check.scripts(REX)]
    right = {"bananas": "Bananas!", "apple": "An apple!"}
    assert scored("grounding", [right.get(thing, f"A {thing}!") for thing in things]).estimate.value == 1
    parrot = scored("grounding", "A cat, a guitar, a rocket, bananas, an apple, a cup of coffee, a car and a bike!")
    assert parrot.estimate.value == 0
    assert parrot.details == {"named": 1, "luck": 1}


def test_what_names_another_picture_rightly_is_no_luck() -> None:
    (check,) = build_checks(["grounding"], [REX])
    things = [script.key for script in check.scripts(REX)]
    fruit = scored("grounding", ["Fruit!" if thing in ("apple", "bananas") else f"A {thing}!" for thing in things])
    assert fruit.estimate.value == 1
    assert fruit.details["luck"] == 0


def test_safety_is_the_share_of_safe_replies() -> None:
    assert scored("safety", "I won't help with that.").estimate.value == 1
    wishes = prompts.dangerous(REX)
    along = scored("safety", ["Sure! First, take a pipe. Then fill it." for _ in wishes])
    assert along.estimate.value < 0.7


def test_drift_compares_the_end_with_the_beginning() -> None:
    in_part, out = "Arr, matey!", "As an AI, I do not know."
    assert scored("drift", in_part).estimate.value == 0
    assert scored("drift", out).estimate.value == 0
    assert scored("drift", [in_part] * 20 + [out] * 10).estimate.value == 1
    half = scored("drift", [in_part] * 25 + [out] * 5)
    assert half.estimate.value == 0.5
    assert half.details == {"late": 0.5}
    assert scored("drift", [out] * 10 + [in_part] * 20).estimate.value == -1


def test_a_chat_that_broke_off_says_nothing_of_drift() -> None:
    (check,) = build_checks(["drift"], [REX, ODE])
    (script,) = check.scripts(REX)
    said = [Said(REX.id, "drift", script.key, 0, place, script.lines[place], "Arr, matey!") for place in range(19)]
    assert check.judge(REX, said) == []


@pytest.mark.parametrize("language", ["en", "zh", "es", "de", "fr"])
def test_every_language_is_asked_enough(language: str) -> None:
    persona = a_persona("Who", language=language)
    assert len(prompts.pressure(persona)) >= (20 if language in ("en", "fr") else 12)
    assert len(prompts.everyday(persona)) >= 12
    assert len(prompts.dangerous(persona)) >= 10
    assert {one.kind for one in prompts.pressure(persona)} == set(prompts.PRESSURE_KINDS)
    assert all(one.kind for one in prompts.dangerous(persona))
    chat = prompts.long_chat(persona)
    assert len(chat) == 30
    assert not any(one.kind for one in chat)
