"""Where sentences end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.generation.lexicon.sentences import Sentences


def after(text: str, start: str = "") -> Sentences:
    sentences = Sentences(start)
    sentences.add(text)
    return sentences


@pytest.mark.parametrize(
    ("text", "num", "is_at_end"),
    [
        ("", 0, False),
        ("Ahoy", 0, False),
        ("Ahoy!", 1, True),
        ("Ahoy! ", 1, True),
        ("Ahoy! I", 1, False),
        ("Ahoy?! 😀 *waves", 1, False),
        ('"Ahoy!" 🎉', 1, True),
        ("It costs 3.5 coins", 0, False),
        ("It costs 3.5 coins.", 1, True),
        ("Mr. Grub is in", 0, False),
        ("Bring, e.g. tea", 0, False),
        ("Well... I see.", 2, True),
        ("Rope\nTorches\n\nTea", 2, False),
        ("1. Rope.\n2. Tea", 1, False),
        ("门没锁。进来吧！小声", 2, False),
        ("门没锁。", 1, True),
        ("क्या हाल है।", 1, True),
    ],
)
def test_sentences_are_counted_where_they_end(text: str, num: int, is_at_end: bool) -> None:
    assert (after(text).num, after(text).is_at_end) == (num, is_at_end)


def test_a_sentence_begins_at_the_beginning_and_behind_an_end() -> None:
    assert after("").is_at_start
    assert after("Ahoy!").is_at_start
    assert after("Ahoy.\n\n").is_at_start
    assert not after("Ahoy! I").is_at_start


def test_what_stood_there_is_not_counted_but_gone_on_with() -> None:
    assert after("", "One. Two.").num == 0
    assert not after("", "One. Two").is_at_start
    assert after(" more words.", "One. Two").num == 1
    assert after(" Three.", "One. Two.").num == 1


@given(st.text(alphabet="ab .!?\n'\"3。😀", max_size=30), st.integers(1, 4))
def test_it_does_not_matter_in_which_parts_a_text_comes(text: str, size: int) -> None:
    piecewise = Sentences()
    for start in range(0, len(text), size):
        piecewise.add(text[start : start + size])
    whole = after(text)
    assert (piecewise.num, piecewise.is_at_end, piecewise.is_at_start) == (
        whole.num,
        whole.is_at_end,
        whole.is_at_start,
    )
