"""Languages are found by whatever people call them."""

import pytest

from bot.languages import LANGUAGE_NAMES, language_named


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("de", "German"),
        ("Deutsch", "German"),
        ("GERMAN:", "German"),
        ("francais", "French"),
        ("Français", "French"),
        ("pt-BR", "Portuguese"),
        ("zh-Hant", "Chinese"),
        ("中文", "Chinese"),
        ("norsk", "Norwegian"),
        ("русский", "Russian"),
        ("Klingon", None),
        ("", None),
        ("the", None),
    ],
)
def test_a_language_is_found(text: str, language: str | None) -> None:
    assert language_named(text) == language


def test_every_name_means_itself() -> None:
    assert all(language_named(name) == name for name in LANGUAGE_NAMES)
    assert len(set(LANGUAGE_NAMES)) == len(LANGUAGE_NAMES) > 25
