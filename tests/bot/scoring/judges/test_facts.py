"""Answers are found as people would write them, and not where they are denied."""

import pytest

from bot.scoring.judges.facts import comparable, judge_fact, mentions
from engine.persona import Fact


@pytest.mark.parametrize(
    ("reply", "answer", "language"),
    [
        ("There are ninety-nine stairs, child.", "99", "en"),
        ("Two thousand five hundred coins!", "2,500", "en"),
        ("Parcels leave at 15:00.", "15:00", "en"),
        ("It pays in a button", "buttons", "en"),
        ("A pastel de nata, of course.", "Pastel de Nata", "en"),
        ("In São Paulo.", "Sao Paulo", "en"),
        ("It's **Ember**, the dragon's name is Ember's.", "Ember", "en"),
        ("No, Lisbon!", "Lisbon", "en"),
        ("Nobody but Ember.", "Ember", "en"),
        ("I sell not only rope.", "rope", "en"),
        ("She never sleeps. She loves tea", "tea", "en"),
        ("Tengo mil quinientos treinta y un libros.", "1531", "es"),
        ("Das sind einhundertsiebenundzwanzig Bücher.", "127", "de"),
        ("本猫三百岁了喵。", "300", "zh"),
        ("在苏州平江路。", "平江路", "zh"),
        ("二百五十", "250", "zh"),
        ("not for sale", "not for sale", "en"),
    ],
)
def test_finds_an_answer(reply: str, answer: str, language: str) -> None:
    assert judge_fact(reply, Fact(ask="?", expect=(answer,)), language=language).is_right


@pytest.mark.parametrize(
    ("reply", "answer", "language"),
    [
        ("I am not from Lisbon.", "Lisbon", "en"),
        ("I don't like tea", "tea", "en"),
        ("Nobody told Ember.", "Ember", "en"),
        ("The tower is tall.", "owe", "en"),
        ("There are 199 stairs.", "99", "en"),
        ("ninety, nine stairs", "99", "en"),
        ("It has one.", "ones and twos", "en"),
        ("No vivo en Lisboa.", "Lisboa", "es"),
        ("Ich mag Tee nicht.", "Tee", "de"),
        ("本猫不是狗。", "狗", "zh"),
        ("", "tea", "en"),
    ],
)
def test_finds_no_answer(reply: str, answer: str, language: str) -> None:
    assert not judge_fact(reply, Fact(ask="?", expect=(answer,)), language=language).is_right


def test_a_wrong_answer_spoils_a_right_one() -> None:
    fact = Fact(ask="Which stairs lead out?", expect=("left",), avoid=("right",))
    assert judge_fact("The left stairs.", fact).is_right
    both = judge_fact("The left stairs, or the right ones.", fact)
    assert not both.is_right
    assert both.avoided == "right"
    assert judge_fact("The left stairs, not the right ones.", fact).is_right


def test_one_of_several_answers_is_enough() -> None:
    fact = Fact(ask="When?", expect=("15:00", "three in the afternoon", "3 pm"))
    assert judge_fact("At 3pm.", fact).found == "3 pm"


def test_a_clause_ends_a_negation() -> None:
    assert mentions("I never swim, the lamp is my work", "lamp")
    assert not mentions("I never light the lamp", "lamp")


def test_a_long_text_takes_no_time() -> None:
    assert len(comparable("one hundred and " * 30_000).words) > 30_000


def test_words_keep_their_clauses() -> None:
    words = comparable("One, two; thirty-four cats.")
    assert words.words == ("1", "2", "34", "cats")
    assert words.clause_of == (0, 1, 2, 2)
