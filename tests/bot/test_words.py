"""Which words are found in a text."""

import pytest

from bot.words import find_word, fold, has_any, spaced_words


@pytest.mark.parametrize(
    ("text", "word", "is_found"),
    [
        ("Ann!", "ann", True),
        ("Annabel", "ann", False),
        ("my_ann", "ann", False),
        ("STRASSE", "straße", True),
        ("ｌｕｎａ", "luna", True),
        ("a  b", "a b", True),
        ("axb", "a.b", False),
        ("今天小明在吗", "小明", True),
        ("今天Ann在吗", "ann", True),
        ("今天小红在吗", "小明", False),
        ("きょうルナさん", "ルナ", True),
        ("루나야 안녕", "루나", True),
        ("สวัสดีลูน่าค่ะ", "ลูน่า", True),
        ("c++ rocks", "c++", True),
        ("", "ann", False),
    ],
)
def test_whole_words_are_found(text: str, word: str, is_found: bool) -> None:
    assert has_any(fold(text), (word,)) is is_found


def test_where_a_word_stands() -> None:
    assert list(find_word(fold("Ann, annabel; ANN"), "ann")) == [(0, 3), (14, 17)]


def test_words_between_spaces() -> None:
    assert spaced_words(fold("Say “Hallo”在吗, Zoë_2!")) == ["say", "hallo", "zoë_2"]
