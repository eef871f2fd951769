"""Macros in what authors write: `{{char}}`, `{{random:a,b}}`, `{{// a note}}` and the like. Pure: no clock, no chance.

Owns their spelling and what each becomes. Chance and time are given, so that a text can be filled alike again. What is
put in is never read for macros again: whoever is called `{{char}}` stays called so, as long as a text is filled once.
Knows no prompt.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import regex

# Macros inside of macros; what is nested deeper loses its outermost.
MAX_NESTING = 16
MAX_DICE = 100
MAX_SIDES = 1_000_000
# What the dice of one text may be together: a long text can hold thousands of macros.
MAX_DICE_A_TEXT = 2_000

# Of a run of braces the innermost count: `{{{char}}}` is `{{char}}` in braces.
_SIGN = re.compile(r"(?P<open>\{\{(?!\{))|(?P<close>\}\})|<(?P<name>bot|char|user)>", re.IGNORECASE)
_HEAD = re.compile(r"\s*(?:(?P<note>//)|(?P<name>\w{1,32})\s*(?P<mark>::?)?)")
_DICE = re.compile(
    r"\s*(?:(?P<dice>\d{1,4})?d)?(?P<sides>\d{1,7})\s*(?P<plus>[+-]\s*\d{1,7})?\s*", re.IGNORECASE | re.A
)
_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class MacroContext:
    """What macros become: the names, and where chance and time come from.

    `original` stands for `{{original}}`, once. All chance comes from `seed`, but for `{{pick}}`: that is the same for
    one `conversation` as long as the text around it is. Without `now`, macros of time stay as they are.
    """

    char: str
    user: str
    original: str | None = None
    seed: str = ""
    conversation: str = ""
    now: datetime | None = None


def fill(text: str, context: MacroContext) -> str:
    """`text` with its macros replaced, in any case. Unknown ones stay as they are."""
    return _walked(text, _Filling(context, text)) if _may_hold_macros(text) else text


def seen_by_lore(text: str, context: MacroContext) -> str:
    """What of an entry's `text` may bring up other entries: names, and hidden keys, but no notes."""
    return _walked(text, _Filling(context, text, is_for_lore=True)) if _may_hold_macros(text) else text


def without_asides(text: str) -> str:
    """What was said, `text`, without notes and hidden keys, which call no lore. Other macros are what was said."""
    return _walked(text, _Asides()) if "{{" in text else text


@dataclass(frozen=True, slots=True)
class _Value:
    """What a macro became: neither macros nor separators are looked for in it."""

    text: str


class _Trim:
    """Where newlines on both sides go away."""


_Piece = str | _Value | _Trim
_Pieces = list[_Piece]


class _Asides:
    """Drops what is not said aloud, and leaves all else."""

    def named(self, _name: str) -> _Piece | None:
        return None

    def called(self, name: str, _pieces: _Pieces, mark: str) -> _Pieces | None:
        return [] if name == "//" or (name in ("comment", "hidden_key") and mark) else None


@dataclass(slots=True)
class _Filling:
    """One text being filled."""

    context: MacroContext
    text: str
    is_for_lore: bool = False
    has_original: bool = True
    num_dice: int = 0
    num_draws: int = 0
    digest: str = field(default="")

    def named(self, name: str) -> _Piece | None:
        """What `<name>` becomes."""
        return _Value(self.context.user if name == "user" else self.context.char)

    def called(self, name: str, pieces: _Pieces, mark: str) -> _Pieces | None:
        """What the macro `name` becomes, after whose `mark` come `pieces`; `None` where there is no such macro."""
        if name == "//" or (name == "comment" and mark):
            return []
        if name == "hidden_key" and mark:
            # Apart from its neighbours, or it would be part of their words.
            return [_Value(f" {_joined(pieces)} ")] if self.is_for_lore else []
        if self.is_for_lore and name not in ("char", "user", "reverse"):
            return None
        replaced = self._replaced(name, pieces, mark)
        return None if replaced is None else [replaced]

    def _replaced(self, name: str, pieces: _Pieces, mark: str) -> _Piece | None:
        if mark or name == "roll":
            with_argument = {"random": self._random, "pick": self._pick, "roll": self._roll, "reverse": _reversed}
            make: Callable[[_Pieces], _Piece | None] | None = with_argument.get(name)
            return make(pieces) if make else None
        return None if _joined(pieces).strip() else self._plain(name)

    def _plain(self, name: str) -> _Piece | None:
        """What a macro without an argument becomes."""
        if name == "original":
            return _Value(self._original())
        if name == "trim":
            return _Trim()
        now = self.context.now
        known = {"char": self.context.char, "user": self.context.user, "newline": "\n", "noop": ""}
        if now is not None:
            known |= {"time": f"{now:%H:%M}", "isotime": f"{now:%H:%M}", "weekday": f"{now:%A}"}
            known |= {"date": now.date().isoformat(), "isodate": now.date().isoformat()}
        return _Value(known[name]) if name in known else None

    def _original(self) -> str:
        given = self.context.original if self.has_original else None
        self.has_original = False
        return given or ""

    def _random(self, pieces: _Pieces) -> _Piece:
        return self._chosen(pieces, self.context.seed)

    def _pick(self, pieces: _Pieces) -> _Piece:
        return self._chosen(pieces, f"pick {self.context.conversation}")

    def _chosen(self, pieces: _Pieces, seed: str) -> _Piece:
        choices = _choices(pieces)
        return _Value(choices[self._draw(seed) % len(choices)].strip())

    def _roll(self, pieces: _Pieces) -> _Piece | None:
        match = _DICE.fullmatch(_joined(pieces))
        if match is None:
            return None
        num_dice, num_sides = int(match["dice"] or 1), int(match["sides"])
        self.num_dice += num_dice
        if not (0 < num_dice <= MAX_DICE and 0 < num_sides <= MAX_SIDES and self.num_dice <= MAX_DICE_A_TEXT):
            return None
        dice = random.Random(self._draw(self.context.seed))  # noqa: S311
        total = sum(dice.randint(1, num_sides) for _ in range(num_dice))
        return _Value(str(total + int((match["plus"] or "0").replace(" ", ""))))

    def _draw(self, seed: str) -> int:
        """A large number that depends on the seed, the text and the place in it."""
        self.digest = self.digest or hashlib.blake2b(self.text.encode(errors="replace"), digest_size=16).hexdigest()
        self.num_draws += 1
        key = f"{seed}\0{self.digest}\0{self.num_draws}"
        return int.from_bytes(hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest(), "big")


def _may_hold_macros(text: str) -> bool:
    return "{{" in text or "<" in text


def _walked(text: str, macros: _Asides | _Filling) -> str:
    """`text` in one pass from left to right: each macro is replaced where it closes."""
    open_frames: list[_Pieces] = [[]]  # the first is what stands outside of all macros
    end = 0
    for sign in _SIGN.finditer(text):
        open_frames[-1].append(text[end : sign.start()])
        end = sign.end()
        if sign["open"]:
            open_frames.append([])
            if len(open_frames) > MAX_NESTING + 1:
                outermost = open_frames.pop(1)
                open_frames[0] += ["{{", *outermost]
        elif sign["close"]:
            _close(open_frames, macros)
        else:
            open_frames[-1].append(macros.named(sign["name"].lower()) or sign[0])
    open_frames[-1].append(text[end:])
    first, *never_closed = open_frames
    return _joined([*first, *(piece for frame in never_closed for piece in ("{{", *frame))])


def _close(open_frames: list[_Pieces], macros: _Asides | _Filling) -> None:
    if len(open_frames) == 1:
        open_frames[0].append("}}")
        return
    pieces = open_frames.pop()
    open_frames[-1] += _called(pieces, macros)


def _called(pieces: _Pieces, macros: _Asides | _Filling) -> _Pieces:
    """What `{{…}}` around `pieces` becomes."""
    first = pieces[0] if isinstance(pieces[0], str) else ""
    if (head := _HEAD.match(first)) is not None:
        name = (head["note"] or head["name"]).lower()
        made = macros.called(name, [first[head.end() :], *pieces[1:]], head["mark"] or "")
        if made is not None:
            return made
    return ["{{", *pieces, "}}"]


def _choices(pieces: _Pieces) -> Sequence[str]:
    """What stands between `::`, or where there is none between commas that are not escaped; values stay whole."""
    is_doubled = any(isinstance(piece, str) and "::" in piece for piece in pieces)
    choices = [""]
    for piece in pieces:
        if isinstance(piece, str):
            first, *more = piece.split("::") if is_doubled else list(_between_commas(piece))
            choices[-1] += first
            choices += more
        elif isinstance(piece, _Value):
            choices[-1] += piece.text
    return choices


def _between_commas(text: str) -> Iterator[str]:
    for part in re.split(r"(?<!\\),", text):
        yield part.replace("\\,", ",")


def _reversed(pieces: _Pieces) -> _Piece:
    return _Value("".join(reversed(_GRAPHEME.findall(_joined(pieces)))))


def _joined(pieces: _Pieces) -> str:
    parts: list[str] = []
    is_trimming = False
    for piece in pieces:
        if isinstance(piece, _Trim):
            while parts and not (trimmed := parts[-1].rstrip("\r\n")):
                parts.pop()
            if parts:
                parts[-1] = trimmed
            is_trimming = True
            continue
        text = piece.text if isinstance(piece, _Value) else piece
        text = text.lstrip("\r\n") if is_trimming else text
        if text:
            parts.append(text)
            is_trimming = False
    return "".join(parts)
