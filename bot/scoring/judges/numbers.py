"""Numbers in words as digits, in the languages that the judges know. Pure; words are folded, without accents."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

# The longest number that is read; texts may be long.
MAX_NUMBER_WORDS = 12
_ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SPANISH = (
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete "
    "dieciocho diecinueve veinte veintiuno veintidos veintitres veinticuatro veinticinco veintiseis veintisiete "
    "veintiocho veintinueve"
)
_SPANISH_TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa"
_SPANISH_HUNDREDS = (
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
_GERMAN = (
    "null eins zwei drei vier funf sechs sieben acht neun zehn elf zwolf dreizehn vierzehn funfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
_GERMAN_TENS = "zwanzig dreissig vierzig funfzig sechzig siebzig achtzig neunzig"
_CHINESE = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "萬": 10_000}


def digits_of(words: Sequence[str], clause_of: Sequence[int], code: str) -> Iterator[tuple[str, int]]:
    """`words` with their clauses, numbers made digits: `ninety nine stairs` is `99 stairs`."""
    position = 0
    while position < len(words):
        clause, ahead = clause_of[position], range(position, min(position + MAX_NUMBER_WORDS, len(words)))
        num_read, value = _read([words[i] for i in ahead if clause_of[i] == clause], code)
        yield (words[position] if value is None else str(value), clause)
        position += max(1, num_read)


def _read(words: Sequence[str], code: str) -> tuple[int, int | None]:
    """How many of the first words are a number, and which."""
    return _read_chinese(words) if code == "zh" else _read_spaced(words, code)


def _read_spaced(words: Sequence[str], code: str) -> tuple[int, int | None]:
    values, joint = _values(code), {"en": "and", "es": "y"}.get(code)
    total = part = num_read = 0
    room = 0  # what may still follow is smaller: after twenty a one, after one nothing
    for position, word in enumerate(words):
        value = values.get(word)
        is_joint = word == joint and part and position + 1 < len(words) and values.get(words[position + 1], 1000) < room
        if is_joint:
            continue
        if value is None:
            break
        if value in (100, 1000) and code != "es" and part < value and (part or not num_read):
            part = max(1, part) * value
            total, part, room = (total + part, 0, value) if value == 1000 else (total, part, value)
        elif value == 1000 and num_read and part:  # dos mil
            total, part, room = total + part * value, 0, value
        elif not num_read or value < room:
            part += value
            room = _place_of(value)
        else:
            break
        num_read = position + 1
    return (num_read, total + part) if num_read else (0, None)


def _place_of(value: int) -> int:
    if value >= 100 and value % 100 == 0:
        return 1000 if value == 1000 else 100
    return 10 if value >= 20 and value % 10 == 0 else 0


def _read_chinese(words: Sequence[str]) -> tuple[int, int | None]:
    total = section = digit = num_read = 0
    for word in words:
        if word in _CHINESE:
            # Digits in a row are read one by one: 二〇二六.
            digit = digit * 10 + _CHINESE[word]
        elif word in _CHINESE_UNITS and (num_read or word == "十"):
            unit = _CHINESE_UNITS[word]
            if unit == 10_000:
                total, section, digit = (total + section + digit) * unit, 0, 0
            else:
                section, digit = section + max(1, digit) * unit, 0
        else:
            break
        num_read += 1
    return (num_read, total + section + digit) if num_read else (0, None)


@lru_cache(maxsize=8)
def _values(code: str) -> dict[str, int]:
    if code == "es":
        return _spanish()
    return _german() if code == "de" else _english() if code == "en" else {}


def _english() -> dict[str, int]:
    tens = {word: 10 * number for number, word in enumerate(_ENGLISH_TENS.split(), 2)}
    return {word: value for value, word in enumerate(_ENGLISH.split())} | tens | {"hundred": 100, "thousand": 1000}


def _spanish() -> dict[str, int]:
    tens = {word: 10 * number for number, word in enumerate(_SPANISH_TENS.split(), 3)}
    hundreds = {word: 100 * number for number, word in enumerate(_SPANISH_HUNDREDS.split(), 1)}
    ones = {word: value for value, word in enumerate(_SPANISH.split())} | {"un": 1, "una": 1}
    return ones | tens | hundreds | {"cien": 100, "mil": 1000}


def _german() -> dict[str, int]:
    """German writes numbers as one word: siebenundzwanzig, dreihundert."""
    below_100 = {word: value for value, word in enumerate(_GERMAN.split())} | {"ein": 1, "eine": 1, "zwo": 2}
    ones = [(value, "ein" if value == 1 else word) for value, word in enumerate(_GERMAN.split()[:10]) if value]
    for number, ten in enumerate(_GERMAN_TENS.split(), 2):
        below_100 |= {ten: 10 * number} | {f"{word}und{ten}": 10 * number + value for value, word in ones}
    values = below_100 | {"hundert": 100, "tausend": 1000}
    for value, word in ones:
        values[f"{word}tausend"] = 1000 * value
        for beginning in (f"{word}hundert", *(["hundert"] if value == 1 else [])):
            values[beginning] = 100 * value
            values |= {f"{beginning}{rest}": 100 * value + low for rest, low in below_100.items() if low}
    return values
