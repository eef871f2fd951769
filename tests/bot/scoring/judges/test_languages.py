"""A reply in another language is told from one that only borrows a word."""

import pytest

from bot.scoring.judges.languages import is_foreign


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Das ist nicht der Hund, und ich habe auch keine Katze.", {"en"}),
        ("The cat is on the roof and you know it.", {"de"}),
        ("The cat is on the roof.", {"zh"}),
        ("猫在屋顶上睡觉，别吵它。", {"en"}),
        ("Кошка спит на крыше.", {"en", "de"}),
        ("El gato está en el techo, pero no quiere bajar por la noche.", {"de"}),
    ],
)
def test_is_foreign(text: str, spoken: set[str]) -> None:
    assert is_foreign(text, frozenset(spoken))


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Olá, amigo! That is the best pastel de nata in the city.", {"en"}),
        ("The cat is on the roof.", {"de", "en"}),
        ("本猫喜欢 jazz 和 blues。", {"zh"}),
        ("Vamos!", {"en"}),
        ("La vie est belle pour nous, and I say it to you when the rain is on the window.", {"en"}),
        ("Kissa on katolla ja nukkuu siellä.", {"fi"}),
        ("", {"en"}),
    ],
)
def test_is_at_home(text: str, spoken: set[str]) -> None:
    assert not is_foreign(text, frozenset(spoken))
