"""Numbers in words become the digits that they mean, in each language that is known."""

import pytest

from bot.scoring.judges.facts import comparable


@pytest.mark.parametrize(
    ("text", "language", "number"),
    [
        ("zero", "en", "0"), ("twelve", "en", "12"), ("ninety nine", "en", "99"), ("ninety-nine", "en", "99"),
        ("one hundred and five", "en", "105"), ("a thousand", "en", "1000"), ("two thousand six", "en", "2006"),
        ("diecisiete", "es", "17"), ("treinta y dos", "es", "32"), ("dos mil veintiséis", "es", "2026"),
        ("ciento uno", "es", "101"), ("zwölf", "de", "12"), ("siebenundzwanzig", "de", "27"),
        ("dreihundertelf", "de", "311"), ("十二", "zh", "12"), ("三百零五", "zh", "305"), ("二〇二六", "zh", "2026"),
        ("两千", "zh", "2000"), ("一万二千", "zh", "12000"),
    ],
)  # fmt: skip
def test_reads_a_number(text: str, language: str, number: str) -> None:
    assert comparable(text, language).words[-1] == number


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("two three", "en", ("2", "3")),
        ("twenty and counting", "en", ("20", "and", "counting")),
        ("once upon a time", "en", ("once", "upon", "a", "time")),
        ("twenty thirteen", "en", ("20", "13")),
        ("hundreds", "en", ("hundreds",)),
    ],
)
def test_reads_no_more_than_there_is(text: str, language: str, words: tuple[str, ...]) -> None:
    assert comparable(text, language).words == words
