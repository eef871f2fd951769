"""A long text in, pieces that a platform accepts out. Pure.

Owns where a text may be cut: paragraph, line, sentence, clause, word, and never inside a character that people see as
one. Knows Markdown's code fences, which it closes and opens again; knows no platform.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MIN_LIMIT = 128  # leaves room for a fence at both ends of a piece

_BORDERS = (
    re.compile(r"(?=\r?\n[ \t]*\r?\n)"),  # paragraph
    re.compile(r"(?=\r?\n)"),  # line
    # A run of stops is tried once, as a whole: a model may write thousands.
    re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]»*_]*+(?=\s)|[。！？…]+[」』”’）]*"),  # sentence
    re.compile(r"[,;:](?=\s)|[，、；：]"),  # clause
    re.compile(r"(?=\s)"),  # word
)
_OPENING = re.compile(r" {0,3}(`{3,10}|~{3,10})[ \t]*([^`\s]{0,20})[^`\n]{0,40}\r?")
_JOINERS = {"\u200d", "\u200c"}


@dataclass(frozen=True, slots=True)
class Piece:
    """What is sent, and which part of the whole text it shows."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Fence:
    marker: str
    language: str

    @property
    def opening(self) -> str:
        return f"{self.marker}{self.language}\n"

    @property
    def closing(self) -> str:
        return f"\n{self.marker}"

    def is_closed_by(self, line: str) -> bool:
        found = line.strip()
        return (
            len(line) - len(line.lstrip(" ")) <= 3 and len(found) >= len(self.marker) and set(found) == {self.marker[0]}
        )


def split_text(text: str, *, limit: int, measure: Callable[[str], int] = len) -> list[Piece]:
    """Cut `text` into pieces of at most `limit` as `measure` counts.

    Only whitespace at the cuts is left out. A text that grows keeps its earlier cuts, so that it can be shown while it
    is being written. Raises `ValueError` for a limit below `MIN_LIMIT`.
    """
    if limit < MIN_LIMIT:
        raise ValueError(f"limit must be at least {MIN_LIMIT}, not {limit}")
    pieces: list[Piece] = []
    fence: _Fence | None = None
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    while start < end:
        piece, fence = _first_piece(text, start, end, fence, limit, measure)
        pieces.append(piece)
        start = _skip_gap(text, piece.end, fence)
    return pieces


def _first_piece(
    text: str, start: int, end: int, fence: _Fence | None, limit: int, measure: Callable[[str], int]
) -> tuple[Piece, _Fence | None]:
    opening = fence.opening if fence else ""
    rest = text[start:end]
    if measure(opening) + measure(rest) <= limit:
        return Piece(opening + rest, start, end), None
    room = limit - measure(opening)
    window = _fitting(rest, room, measure)
    if fence or "```" in rest[:window] or "~~~" in rest[:window]:
        window = _fitting(rest, room - 11, measure)  # the longest closing fence and its line break
    cut = _best_cut(rest, window, fence)
    body, after = rest[:cut], _fence_after(rest[:cut], fence)
    if after is None:
        return Piece(opening + body.rstrip(), start, start + cut), None
    own_closing = re.match(rf"\r?\n {{0,3}}{re.escape(after.marker)}[ \t]*(?=\r?\n|$)", rest[cut:])
    taken = start + cut + (own_closing.end() if own_closing else 0)
    return Piece(opening + body + after.closing, start, taken), None if own_closing else after


def _skip_gap(text: str, position: int, fence: _Fence | None) -> int:
    # Code keeps its indentation: only the line break at the cut is the gap.
    gap = re.compile(r"(\r?\n)?" if fence else r"\s*").match(text, position)
    return gap.end() if gap else position


def _fitting(text: str, room: int, measure: Callable[[str], int]) -> int:
    """The largest number of leading characters that fit, at least one."""
    low, high = 1, min(len(text), room)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measure(text[:middle]) <= room else (low, middle - 1)
    return low


def _best_cut(text: str, window: int, fence: _Fence | None) -> int:
    """Where to cut `text` so that at most `window` characters come before: the best border in the later half, or the
    last border at all, or between two visible characters."""
    seen = text[: window + 1]  # one more, to see what a border is followed by
    lines = list(_lines(seen, fence))
    found = [[cut for cut in _cuts(pattern, seen) if 0 < cut <= window] for pattern in _BORDERS]
    for floor in (window // 2, 0):
        for cuts in found:
            for cut in reversed(cuts):
                if cut > floor and _is_allowed(seen, cut, lines):
                    return cut
    for cut in range(window, max(0, window - 64), -1):
        if is_grapheme_border(seen, cut):
            return cut
    return window


def _cuts(pattern: re.Pattern[str], text: str) -> list[int]:
    return [match.end() for match in pattern.finditer(text)]


def _is_allowed(text: str, cut: int, lines: list["_Line"]) -> bool:
    if not text[:cut].strip() or not is_grapheme_border(text, cut):
        return False
    line = next(line for line in lines if cut <= line.end)
    # Within a fence a cut would break it; after an opening one it would leave an empty block behind.
    return not line.is_fence or (cut == line.end and line.after is None)


@dataclass(frozen=True, slots=True)
class _Line:
    end: int
    is_fence: bool
    after: _Fence | None


def _lines(text: str, fence: _Fence | None) -> Iterator[_Line]:
    """The lines of `text`, each with the fence that is open after it. `end` is where its line break begins."""
    position = 0
    for line in text.split("\n"):
        end = position + len(line)
        opened = _OPENING.fullmatch(line) if fence is None else None
        if fence is not None and fence.is_closed_by(line):
            fence = None
            yield _Line(end, is_fence=True, after=None)
        elif opened:
            fence = _Fence(opened[1], opened[2])
            yield _Line(end, is_fence=True, after=fence)
        else:
            yield _Line(end, is_fence=False, after=fence)
        position = end + 1


def _fence_after(text: str, fence: _Fence | None) -> _Fence | None:
    for line in _lines(text, fence):
        fence = line.after
    return fence


def is_grapheme_border(text: str, position: int) -> bool:
    """Whether people see two characters, not one, on both sides of `position`. Follows UAX #29 where it matters."""
    if not 0 < position < len(text):
        return True
    before, after = text[position - 1], text[position]
    if before + after == "\r\n" or after in _JOINERS or before == "\u200d":
        return False
    if unicodedata.category(after) in {"Mn", "Me", "Mc"} or "\U0001f3fb" <= after <= "\U0001f3ff":
        return False
    if "\U000e0020" <= after <= "\U000e007f":  # the letters of a flag such as Scotland's
        return False
    if unicodedata.combining(before) == 9 and unicodedata.category(after) == "Lo":  # a conjunct
        return False
    if _is_regional(before) and _is_regional(after):
        return _num_regional_before(text, position) % 2 == 0
    return not _is_hangul_joined(before, after)


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _num_regional_before(text: str, position: int) -> int:
    count = 0
    while count < position and _is_regional(text[position - 1 - count]):
        count += 1
    return count


def _is_hangul_joined(before: str, after: str) -> bool:
    leading = "\u1100" <= before <= "\u115f"
    is_syllable = "\uac00" <= before <= "\ud7a3" or "\u1160" <= before <= "\u11ff"
    return (leading and ("\u1100" <= after <= "\u11a7" or "\uac00" <= after <= "\ud7a3")) or (
        is_syllable and "\u1160" <= after <= "\u11ff"
    )
