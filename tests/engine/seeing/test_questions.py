"""Which questions a look at the content answers with yes or no."""

import pytest

from engine.seeing.questions import is_beyond, thing_asked_for


@pytest.mark.parametrize(
    ("question", "thing"),
    [
        ("Is there a dog?", "dog"),
        ("is there a dog in the picture?", "dog"),
        ("Are there any people here?", "people"),
        ("Is this an old red car?", "old red car"),
        ("Is it a cat?!", "cat"),
        ("Can you see the Eiffel Tower", "Eiffel Tower"),
        ("Do you see a man riding a horse?", "man riding a horse"),
        ("Does this show a beach?", "beach"),
        ("Does the picture contain some food?", "food"),
        ("Are these your shoes?", "shoes"),
    ],
)
def test_a_thing_is_asked_for(question: str, thing: str) -> None:
    assert thing_asked_for(question) == thing


@pytest.mark.parametrize(
    "question",
    [
        "What is this?",
        "",
        "?",
        "Is there?",
        "Is it a cat or a dog?",
        "How many dogs are there?",
        "Is the name of it written there?",
        "Describe it",
        "is " * 40,
        "Is there a " + "very " * 20 + "long thing?",
    ],
)
def test_other_questions_are_left_to_the_language_model(question: str) -> None:
    assert thing_asked_for(question) is None


@pytest.mark.parametrize(
    "question", ["What colour is it?", "what COLORS", "How many cats?", "Where is it?", "who is he"]
)
def test_some_questions_are_beyond_the_default_stack(question: str) -> None:
    assert is_beyond(question)


def test_most_are_not() -> None:
    assert not is_beyond("What is this animal?")
