"""Finding the keys of a lorebook in texts: all of them at once, in bounded time.

Owns what a key means (a word, a phrase, a pattern) and how long patterns may take. Knows no entries: a key is a number.
Pure, but for patterns that it gives up.
"""

import hashlib
import logging
import re
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from bot.personas.macros import MacroContext, fill
from bot.words import UNSPACED, fold, is_whole, spaced_words
from engine.persona import compile_pattern

logger = logging.getLogger(__name__)

MAX_CHARACTERS_SEARCHED = 16_000
MAX_KEYS = 20_000
MAX_KEYS_WITH_MACROS = 200
MAX_PATTERN_S = 0.02
MAX_PATTERNS_S = 0.1
# So many slow ones are no oversight any more: then the other patterns of the book are left out, too.
MAX_SLOW_PATTERNS = 20
# Many that are each just quick enough take long together. Where so many more scans take half their time than do not,
# they are left out.
MAX_SCANS_OVER = 8
_MAX_TEXTS_REMEMBERED = 2048
# How many places of one text a key is looked at in that may be parts of longer words.
_MAX_PLACES = 64
_NUM_INDEXED_SIGNS = 3

# `/storms?/i`, as SillyTavern writes patterns.
_DELIMITED = re.compile(r"/(?P<pattern>.+)/(?P<flags>[dgimsuvy]*)", re.DOTALL)
_BACK_REFERENCE = re.compile(r"(?<!\\)((?:\\\\)*)\\k<(\w+)>")
_MACRO = re.compile(r"\{\{|<(?:bot|char|user)>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Spelling:
    """A key as its author wrote it, and how it is to be read."""

    text: str
    is_regex: bool = False
    is_case_sensitive: bool = False
    has_whole_words: bool = True


@dataclass(slots=True)
class Patience:
    """How long the patterns of one scan may take together. `is_over` once any of them was not searched to the end."""

    left_s: float = MAX_PATTERNS_S
    is_over: bool = False
    num_slow: int = 0


@dataclass(frozen=True, slots=True)
class _Forms:
    """A text in the forms in which keys are looked for: folded and as it stands, each with single spaces."""

    raw: str
    folded: str
    plain: str
    words: frozenset[str]


def key_problem(spelling: Spelling) -> str | None:
    """Why a key is never found, in words for its author, or `None`."""
    if not spelling.text.strip():
        return "is empty; give it a word or remove it"
    pattern = None if _MACRO.search(spelling.text) else _pattern_of(spelling)
    if pattern is None:
        return None
    try:
        compile_pattern(pattern.text, flags=pattern.flags)
    except ValueError as error:
        what_for_words = "remove `regex: true`" if spelling.is_regex else "write it without the strokes"
        return f"{str(error).split(';')[0]}; to find it as it stands, {what_for_words}"
    return None


class KeyIndex:
    """All keys of one lorebook; each is known by its place in `spellings`."""

    def __init__(self, spellings: Sequence[Spelling]) -> None:
        self._spellings = spellings
        self._by_word: dict[str, list[_Phrase]] = {}
        self._anywhere = _Beginnings()
        self._anywhere_as_written = _Beginnings()
        self._patterns: list[tuple[int, _Pattern]] = []
        self._with_macros: list[int] = []
        self._num_slow = 0
        self._num_over = 0
        self._last_patience: Patience | None = None
        for number, spelling in enumerate(spellings[:MAX_KEYS]):
            if _MACRO.search(spelling.text):
                if len(self._with_macros) < MAX_KEYS_WITH_MACROS:
                    self._with_macros.append(number)
            else:
                self._take(number, spelling)
        self._remembered: OrderedDict[tuple[bytes, MacroContext | None, str | None], frozenset[int]] = OrderedDict()

    @property
    def has_macros(self) -> bool:
        """Whether what is found depends on names."""
        return bool(self._with_macros)

    def found_in(
        self, text: str, names: MacroContext, patience: Patience, *, speaker: str | None = None
    ) -> frozenset[int]:
        """The keys that occur in `text`. `names` are for macros in keys, `speaker` for patterns that ask who spoke."""
        shown = text[:MAX_CHARACTERS_SEARCHED]
        # Not the text itself: what people wrote is not kept.
        digest = hashlib.blake2b(shown.encode(errors="replace"), digest_size=16).digest()
        key = (digest, names if self.has_macros else None, speaker)
        found = self._remembered.get(key)
        if found is None:
            self._count_scan(patience)
            was_over, patience.is_over = patience.is_over, False
            num_slow = patience.num_slow
            found = frozenset(self._search(_forms(shown), names, patience, speaker))
            if not patience.is_over:
                self._remember(key, found)
            patience.is_over |= was_over
            self._count_slow(patience.num_slow - num_slow)
        return found

    def _count_scan(self, patience: Patience) -> None:
        """Where another scan begins: whether the one before had time enough."""
        before, self._last_patience = self._last_patience, patience
        if before is not None and before is not patience and self._num_slow < MAX_SLOW_PATTERNS:
            self._num_over = max(0, self._num_over + (1 if before.left_s < MAX_PATTERNS_S / 2 else -1))
            self._count_slow(MAX_SLOW_PATTERNS if self._num_over >= MAX_SCANS_OVER else 0)

    def _count_slow(self, num_more: int) -> None:
        if num_more and not self._num_slow:
            # Not the pattern itself, and once a book: whoever wrote it could write what they like into the log.
            logger.warning(
                "patterns among the keys of a lorebook take too long and are left out until the next start: "
                "make them simpler, without repeats inside of repeats"
            )
        self._num_slow += num_more

    def _remember(self, key: tuple[bytes, MacroContext | None, str | None], found: frozenset[int]) -> None:
        self._remembered[key] = found
        if len(self._remembered) > _MAX_TEXTS_REMEMBERED:
            self._remembered.popitem(last=False)

    def _take(self, number: int, spelling: Spelling) -> None:
        if (pattern := _pattern_of(spelling)) is not None:
            self._patterns.append((number, pattern))
        elif (phrase := _phrase_of(number, spelling)) is not None:
            self._take_phrase(phrase)

    def _take_phrase(self, phrase: "_Phrase") -> None:
        if phrase.word is not None:
            self._by_word.setdefault(phrase.word, []).append(phrase)
        elif phrase.is_case_sensitive:
            self._anywhere_as_written.add(phrase)
        else:
            self._anywhere.add(phrase)

    def _search(self, forms: _Forms, names: MacroContext, patience: Patience, speaker: str | None) -> Iterator[int]:
        phrases = [phrase for word in forms.words for phrase in self._by_word.get(word, ())]
        phrases += self._anywhere.begun_in(forms.folded)
        phrases += self._anywhere_as_written.begun_in(forms.plain)
        yield from (phrase.number for phrase in phrases if phrase.is_in(forms))
        patterns = self._patterns if self._num_slow < MAX_SLOW_PATTERNS else ()
        yield from (number for number, pattern in patterns if pattern.is_in(forms.raw, patience, speaker))
        for number in self._with_macros:
            if _is_filled_in(self._spellings[number], number, names, forms, patience, speaker):
                yield number


@dataclass(frozen=True, slots=True)
class _Phrase:
    """Words to be found. `word` is one of those that a text must have for it; without one every text may have it."""

    number: int
    spelling: str
    is_case_sensitive: bool
    is_whole: bool
    word: str | None

    def is_in(self, forms: _Forms) -> bool:
        if self.word == self.spelling and not self.is_case_sensitive:
            return self.word in forms.words
        text = forms.plain if self.is_case_sensitive else forms.folded
        return _stands_whole(self.spelling, text) if self.is_whole else self.spelling in text


class _Beginnings:
    """Phrases by their first signs: of many, a text has to be searched for those only that can begin in it."""

    def __init__(self) -> None:
        self._by_beginning: dict[str, list[_Phrase]] = {}
        self._lengths: set[int] = set()

    def add(self, phrase: _Phrase) -> None:
        beginning = phrase.spelling[:_NUM_INDEXED_SIGNS]
        self._lengths.add(len(beginning))
        self._by_beginning.setdefault(beginning, []).append(phrase)

    def begun_in(self, text: str) -> Iterator[_Phrase]:
        """The phrases of which the first signs are in `text`."""
        for length in self._lengths:
            there = {text[place : place + length] for place in range(len(text) - length + 1)}
            for beginning in there & self._by_beginning.keys():
                yield from self._by_beginning[beginning]


def _phrase_of(number: int, spelling: Spelling) -> _Phrase | None:
    """`None` where nothing is to be found."""
    kept = _spaced(_normal(spelling.text) if spelling.is_case_sensitive else fold(spelling.text))
    if not kept:
        return None
    is_whole = spelling.has_whole_words and not UNSPACED.search(kept)
    # Folded as the texts are, and once: folding again may change it again.
    words = spaced_words(fold(spelling.text)) if is_whole else []
    return _Phrase(number, kept, spelling.is_case_sensitive, is_whole, max(words, key=len, default=None))


@dataclass(slots=True)
class _Pattern:
    """A pattern that is compiled when it is first needed. `is_given_up`: it is none, or took too long once."""

    text: str
    flags: int
    compiled: regex.Pattern[str] | None = None
    is_given_up: bool = False

    def is_in(self, text: str, patience: Patience, speaker: str | None) -> bool:
        if self.is_given_up:
            return False
        if patience.left_s <= 0:
            patience.is_over = True
            return False
        # Not the clock on the wall: on a busy machine a quick pattern may have to wait its turn for long.
        began = time.thread_time()
        try:
            return self._is_found(self._searched(text, speaker), min(MAX_PATTERN_S, patience.left_s))
        except TimeoutError:
            self._stop(patience, time.thread_time() - began)
            return False
        finally:
            patience.left_s -= time.thread_time() - began

    def _is_found(self, text: str, timeout_s: float) -> bool:
        if self.compiled is None:
            try:
                self.compiled = compile_pattern(self.text, flags=self.flags)
            except ValueError:
                self.is_given_up = True
                return False
        return self.compiled.search(text, timeout=timeout_s) is not None

    def _searched(self, text: str, speaker: str | None) -> str:
        # SillyTavern's way to ask who said it.
        return f"\x01{speaker}: {text}" if speaker is not None and "\\x01" in self.text else text

    def _stop(self, patience: Patience, taken_s: float) -> None:
        # The timeout counts the time of all threads: others may have used it up, as patterns before this one may.
        if taken_s < MAX_PATTERN_S / 2:
            patience.is_over = True
        else:
            self.is_given_up = True
            patience.num_slow += 1


def _pattern_of(spelling: Spelling) -> _Pattern | None:
    """`None` where it is no pattern."""
    # Also where all keys are patterns: RisuAI has them all so, and says by a flag whether case matters.
    delimited = _DELIMITED.fullmatch(spelling.text.strip())
    if delimited is None:
        if not spelling.is_regex:
            return None
        return _known_pattern(spelling.text, 0 if spelling.is_case_sensitive else regex.IGNORECASE)
    flags = 0
    for letter, flag in (("i", regex.IGNORECASE), ("m", regex.MULTILINE), ("s", regex.DOTALL)):
        flags |= flag if letter in delimited["flags"] else 0
    return _known_pattern(_from_javascript(delimited["pattern"]), flags)


def _from_javascript(pattern: str) -> str:
    """`pattern` in the spelling of `regex`: `[^]` is any sign, `\\k<name>` what a group found."""
    named = _BACK_REFERENCE.sub(r"\1(?P=\2)", pattern)
    return named.replace("[^]", r"[\s\S]")


@lru_cache(maxsize=8192)
def _known_pattern(text: str, flags: int) -> _Pattern:
    return _Pattern(text, flags)


def _is_filled_in(
    spelling: Spelling, number: int, names: MacroContext, forms: _Forms, patience: Patience, speaker: str | None
) -> bool:
    """Whether a key with macros in it occurs."""
    is_pattern = spelling.is_regex or _DELIMITED.fullmatch(spelling.text.strip()) is not None
    if is_pattern:
        names = MacroContext(char=regex.escape(names.char), user=regex.escape(names.user))
    filled = Spelling(
        fill(spelling.text, names), spelling.is_regex, spelling.is_case_sensitive, spelling.has_whole_words
    )
    pattern = _pattern_of(filled)
    if pattern is not None:
        return pattern.is_in(forms.raw, patience, speaker)
    phrase = _phrase_of(number, filled)
    return phrase is not None and phrase.is_in(forms)


def _forms(text: str) -> _Forms:
    folded = fold(text)[: 2 * MAX_CHARACTERS_SEARCHED]
    plain = _normal(text)[: 2 * MAX_CHARACTERS_SEARCHED]
    return _Forms(text, _spaced(folded), _spaced(plain), frozenset(spaced_words(folded)))


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _stands_whole(spelling: str, text: str) -> bool:
    """Whether `spelling` is in `text` and no part of longer words."""
    begin = -1
    for _ in range(_MAX_PLACES):
        begin = text.find(spelling, begin + 1)
        if begin < 0:
            return False
        if is_whole(text, begin, begin + len(spelling)):
            return True
    return False
