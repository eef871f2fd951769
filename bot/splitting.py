"""A long text in, pieces that a platform accepts out. Pure.

Owns where a text may be cut: paragraph, line, sentence, clause, word, and never inside a character that people see as
one. Knows what people write as Markdown: code fences and formatting that are open at a cut are closed and opened again,
links and emoji are not cut. Knows no platform.

Where a cut is depends only on what comes before it, so that a text may grow; what is put around a piece, on all of it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MIN_LIMIT = 128  # leaves room for what is opened and closed at both ends of a piece
# What a piece may begin and end with beside its part of the text: see `_Formatting`, and a closing fence.
_OPENING_ROOM = 28
_CLOSING_ROOM = 12
_MAX_LINE_MARK = 12

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
# Whether there may be formatting at all.
_MARKED = re.compile(r"[*_~|`>#]|^[ \t]*\d+[.)] ", re.MULTILINE)
_MARK_CHARACTERS = frozenset("*_~|`")
# What is not cut inside: links, addresses, emoji and mentions in angle brackets, marks; also where only the beginning
# is to be seen.
_WHOLE = re.compile(
    r"!?\[[^\[\]\n]{1,300}(?:\](?:\((?:[^()\s]|\([^()\s]*(?:\)|$)){0,500}(?:\)|$)|$)|$)"
    r"|<[^<>\s]{1,200}(?:>|$)"
    r"|https?://[!-;=?-~]+|ht{0,2}(?:ps?:?/{0,2})?$"
    r"|\*{2,3}|_{2,3}|~~|\|\||`{2,}"
)
_INLINE = re.compile(
    r"\\."
    r"|(?P<code>(?<!`)(?P<ticks>`{1,2})(?!`)(?:[^`]|(?!(?P=ticks)(?!`))`++)++(?P=ticks)(?!`))"
    r"|https?://[!-)+-;=?-{}]+|<[^<>\s]{1,200}>|\]\([^()\s]*\)"
    r"|(?P<mark>\*+|_+|~+|\|+)"
)
_MARKS = {
    "*": ("*",), "**": ("**",), "***": ("**", "*"), "_": ("_",), "__": ("__",), "___": ("__", "_"),
    "~~": ("~~",), "||": ("||",),
}  # fmt: skip
_LINE_MARK = re.compile(r"[ \t]{0,3}(?:(?:>[ \t]?)+(?:#{1,3} )?|#{1,3} |-# )")
_LONG_QUOTE = re.compile(r"^>>> ", re.MULTILINE)
_BLOCK_MARKS = re.compile(r"(?:[ \t]*(?:>+|#{1,3}|-#|[-*+]|\d+[.)])[ \t]+)*")
_ITEM = re.compile(r"([ \t]*)(\d{1,6})([.)]) ")


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
    formatting = _Formatting(text)
    fence: _Fence | None = None
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    while start < end:
        piece, fence = _first_piece(formatting, start, end, fence, limit, measure)
        pieces.append(piece)
        start = _skip_gap(text, piece.end, fence)
    return pieces


def _first_piece(
    formatting: "_Formatting", start: int, end: int, fence: _Fence | None, limit: int, measure: Callable[[str], int]
) -> tuple[Piece, _Fence | None]:
    rest = formatting.text[start:end]
    room = limit - (measure(fence.opening) if fence else formatting.room_at(start))
    if measure(rest) <= room:
        return Piece(formatting.opened(start, end, fence), start, end), None
    window = _fitting(rest, room, measure)
    if fence or _MARKED.search(rest[:window]):
        window = _fitting(rest, room - _CLOSING_ROOM, measure)
    cut = start + _best_cut(rest, window, fence)
    after = _fence_after(formatting.text[start:cut], fence)
    if after is None:
        body = formatting.opened(start, cut, fence).rstrip()
        return Piece(body + formatting.closing(cut), start, cut), None
    own_closing = re.match(rf"\r?\n {{0,3}}{re.escape(after.marker)}[ \t]*(?=\r?\n|$)", formatting.text[cut:end])
    taken = cut + (own_closing.end() if own_closing else 0)
    body = formatting.opened(start, cut, fence)
    return Piece(body + after.closing, start, taken), None if own_closing else after


@dataclass(frozen=True, slots=True)
class _Span:
    """Formatted words: `start` and `end` are those of the words, without the marks around them."""

    mark: str
    start: int
    end: int


class _Formatting:
    """What of a text is bold, quoted, listed and so on, and how that goes on in a new piece."""

    def __init__(self, text: str) -> None:
        self.text = text
        marked = _MARKED.search(text)
        self._first_mark = marked.start() if marked else len(text)
        self._spans = sorted(_spans(text), key=lambda span: span.start) if marked else []

    def room_at(self, start: int) -> int:
        """What may be needed to go on with the formatting at `start`."""
        return _OPENING_ROOM if self._first_mark < start else 0

    def opened(self, start: int, end: int, fence: _Fence | None) -> str:
        """The text from `start` to `end`, with what is open at `start` opened again."""
        body = self.text[start:end]
        if fence is not None:
            return fence.opening + body
        if self._first_mark >= start:
            return body
        block = _BLOCK_MARKS.match(body)
        marks_end = block.end() if block else 0
        listed = self._numbered(body[:marks_end], start)
        return self._line_mark(start) + listed + "".join(self._open_at(start)) + body[marks_end:]

    def closing(self, cut: int) -> str:
        """What closes all that is open at `cut`."""
        return "".join(reversed(self._open_at(cut)))

    def _open_at(self, position: int) -> list[str]:
        return [span.mark for span in self._spans if span.start < position <= span.end]

    def _line_mark(self, start: int) -> str:
        """What makes a quote or a heading of the rest of its line."""
        if _LONG_QUOTE.search(self.text, 0, start):
            return ">>> "
        line_start = self.text.rfind("\n", 0, start) + 1
        mark = _LINE_MARK.match(self.text, line_start, start) if line_start < start else None
        return mark[0] if mark and 0 < len(mark[0]) <= _MAX_LINE_MARK and mark.end() < start else ""

    def _numbered(self, block_marks: str, start: int) -> str:
        """An item's number. Where a list repeats one, it is counted; in a new piece the count would begin anew."""
        item = _ITEM.match(block_marks)
        if item is None or self.text[start - 1 : start] not in ("\n", ""):
            return block_marks
        num_before = 0
        for line in reversed(self.text[:start].splitlines()):
            earlier = _ITEM.match(line)
            if earlier and earlier.groups() == item.groups():
                num_before += 1
            elif earlier and earlier[1] == item[1]:
                return block_marks
            elif line.strip() and not line.startswith((" ", "\t")):
                break
        return f"{item[1]}{int(item[2]) + num_before}{block_marks[item.end(2) :]}"


def _spans(text: str) -> Iterator[_Span]:
    open_since: dict[str, int] = {}
    position = 0
    for line in _lines(text, None):
        if line.is_fence or line.after is not None:
            open_since.clear()
        else:
            for found in _INLINE.finditer(text, position, line.end):
                yield from _spans_ended_by(text, found, open_since)
        position = line.end + 1
    if "||" in open_since:
        # What is about to be hidden stays so, also while its end has not come.
        yield _Span("||", open_since["||"], len(text))


def _spans_ended_by(text: str, found: re.Match[str], open_since: dict[str, int]) -> Iterator[_Span]:
    if found["code"]:
        num_ticks = len(found["ticks"])
        yield _Span(found["ticks"], found.start() + num_ticks, found.end() - num_ticks)
    run = found["mark"]
    if run not in _MARKS:
        return
    before, after = text[found.start() - 1 : found.start()] or " ", text[found.end() : found.end() + 1] or " "
    can_close, can_open = not before.isspace(), not after.isspace()
    if run[0] == "_":
        # Within a word it is a part of it.
        can_close, can_open = can_close and not after.isalnum(), can_open and not before.isalnum()
    for mark in _MARKS[run]:
        if mark in open_since and (can_close or mark == "||"):
            yield _Span(mark, open_since.pop(mark), found.start())
        elif can_open or mark == "||":
            open_since[mark] = found.end()


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
    torn = set() if fence else _inside_of_wholes(seen)
    found = [[cut for cut in _cuts(pattern, seen) if 0 < cut <= window and cut not in torn] for pattern in _BORDERS]
    for floor in (window // 2, 0):
        for cuts in found:
            for cut in reversed(cuts):
                if cut > floor and _is_allowed(seen, cut, lines):
                    return cut
    characters = [cut for cut in range(window, window // 2, -1) if is_grapheme_border(seen, cut)]
    unmarked = (cut for cut in characters if cut not in torn and not _MARK_CHARACTERS & set(seen[cut - 1 : cut + 1]))
    return next(unmarked, None) or next(iter(characters), window)


def _inside_of_wholes(text: str) -> set[int]:
    """Where a cut would tear a link or an emoji."""
    return {cut for whole in _WHOLE.finditer(text) for cut in range(whole.start() + 1, whole.end())}


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
