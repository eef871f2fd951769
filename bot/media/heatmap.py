"""What a reply was made of, as a picture for phones and as a line of text.

Owns layout, colours and wording. Knows neither platforms nor how shares are found. Drawn with Pillow alone and the font
that it carries, which knows the letters A to Z: other scripts are drawn with a font of this machine where there is one,
else as a number, and `describe` spells them out under the same number.
"""

import io
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from bot.errors import MediaError
from engine.types import Explanation, GenerationRequest, RegionShares

MAX_CONCEPTS = 5
MAX_WORDS = 6
MAX_FACETS = 5
MAX_FACET_LINES = 3
MAX_QUOTE_LENGTH = 80
# Shares below this are noise, and not worth a bar.
MIN_SHARE = 0.01

_WIDTH = 1080
_MARGIN = 48
_GAP = 24
_MAX_PICTURE_HEIGHT = 900
_BAR_HEIGHT = 20
_LABEL_WIDTH = 300
_PAPER, _INK, _FAINT, _TRACK = (250, 249, 246), (32, 33, 36), (104, 106, 112), (228, 226, 220)
# Okabe and Ito's colours: told apart with every kind of colour blindness.
_STREAM_COLOURS = {"image": (0, 114, 178), "text": (230, 159, 0), "persona": (0, 158, 115)}
_STREAM_NAMES = {"image": "picture", "text": "words", "persona": "persona"}
# Steps of the inferno map: even steps in lightness, so that it also reads in grey.
_HEAT = (
    (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
    (249, 201, 50), (252, 255, 164),
)  # fmt: skip
_LETTERS_WITHOUT_PARTS = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
     "ı": "i", "‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "–": "-", "—": "-", "…": "..."}
)  # fmt: skip
# Looked for by name where a text needs more than Pillow's own font; none of them has to be there.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial Unicode.ttf", "msyh.ttc", "malgun.ttf",
    "arial.ttf",
)  # fmt: skip

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class _Bar:
    """One bar: `name` beside it, `text` above it where it is a sentence."""

    name: str
    share: float
    text: str = ""


class _Sheet:
    """A column that is drawn from top to bottom, and cut to length at the end."""

    def __init__(self) -> None:
        self._paper = Image.new("RGB", (_WIDTH, 6000), _PAPER)
        self._draw = ImageDraw.Draw(self._paper)
        self.y = _MARGIN

    def skip(self, height: int) -> None:
        """Leave room."""
        self.y += height

    def write(self, text: str, *, size: int, colour: tuple[int, int, int] = _INK, x: int = _MARGIN) -> None:
        """Wrapped lines."""
        font = _font_for(text, size)
        for line in _wrap(_drawable(text, size), font, max_width=_WIDTH - _MARGIN - x):
            self._draw.text((x, self.y), line, font=font, fill=colour)
            self.y += round(size * 1.35)

    def paste(self, picture: Image.Image, *, x: int = _MARGIN, y: int | None = None) -> None:
        """A picture at the present height."""
        self._paper.paste(picture, (x, self.y if y is None else y))

    def label(self, text: str, *, x: int, y: int, size: int, colour: tuple[int, int, int] = _INK, anchor: str) -> None:
        """One line somewhere."""
        self._draw.text((x, y), _drawable(text, size), font=_font_for(text, size), fill=colour, anchor=anchor)

    def bar(self, *, x: int, y: int, width: int, filled: float, colour: tuple[int, int, int]) -> None:
        """A rounded bar on its track."""
        box = (x, y, x + width, y + _BAR_HEIGHT)
        self._draw.rounded_rectangle(box, radius=_BAR_HEIGHT // 2, fill=_TRACK)
        if filled > 0:
            end = x + max(_BAR_HEIGHT, round(width * min(filled, 1.0)))
            self._draw.rounded_rectangle((x, y, end, y + _BAR_HEIGHT), radius=_BAR_HEIGHT // 2, fill=colour)

    def block(self, *, x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        """A plain rectangle."""
        self._draw.rectangle((x, y, x + width, y + height), fill=colour)

    def as_png(self) -> bytes:
        """What was drawn."""
        file = io.BytesIO()
        self._paper.crop((0, 0, _WIDTH, self.y + _MARGIN)).save(file, "PNG", optimize=True)
        return file.getvalue()


def draw(explanation: Explanation, pictures: Sequence[bytes], *, title: str) -> bytes:
    """The explanation as a PNG. `pictures` are those of the explained turn, in its order.

    Raises `MediaError` for a picture that cannot be opened.
    """
    sheet = _Sheet()
    sheet.write(title, size=46)
    sheet.skip(_GAP // 2)
    if not explanation.has_prefix:
        sheet.write(explanation.method, size=32, colour=_FAINT)
        return sheet.as_png()
    _draw_streams(sheet, explanation)
    _draw_pictures(sheet, explanation.regions, [_opened(data) for data in pictures])
    _draw_bars(sheet, "What it took the picture for", _concept_bars(explanation), colour=_STREAM_COLOURS["image"])
    _draw_bars(sheet, "Your words", _word_bars(explanation), colour=_STREAM_COLOURS["text"])
    _draw_bars(sheet, "The persona", _facet_bars(explanation), colour=_STREAM_COLOURS["persona"])
    sheet.skip(_GAP)
    sheet.write(explanation.method, size=24, colour=_FAINT)
    return sheet.as_png()


def explained_pictures(request: GenerationRequest) -> list[bytes]:
    """The pictures that an explanation of the reply to `request` is about: those that were shown last."""
    shown = next((turn.images for turn in reversed(request.turns) if turn.images), ())
    return [image.data for image in shown]


def describe(explanation: Explanation) -> str:
    """The same in a few lines of plain text."""
    if not explanation.has_prefix:
        return explanation.method
    lines = []
    if place := _looked_at(explanation.regions):
        lines.append(f"Looked most at: {place}")
    named = (
        ("took the picture for", [bar.name for bar in _concept_bars(explanation)]),
        ("words", [bar.name for bar in _word_bars(explanation)]),
        (
            "persona",
            [": ".join(filter(None, (bar.name, _shortened(bar.text)))) for bar in _facet_bars(explanation)[:3]],
        ),
    )
    lines += [f"{kind}: {_listed(names)}" for kind, names in named if names]
    text = "; ".join(lines)
    return text[:1].upper() + text[1:] if text else "Nothing stood out: picture, words and persona did not matter much."


def _shortened(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= MAX_QUOTE_LENGTH else f"{line[:MAX_QUOTE_LENGTH].rstrip()}…"


def _listed(names: Sequence[str]) -> str:
    """Numbered where the picture can only show numbers."""
    if all(_is_drawable(name, 32) for name in names):
        return ", ".join(names)
    return ", ".join(f"{number}. {name}" for number, name in enumerate(names, start=1))


def _concept_bars(explanation: Explanation) -> list[_Bar]:
    return _highest((_Bar(one.text, one.share) for one in explanation.concepts), MAX_CONCEPTS)


def _word_bars(explanation: Explanation) -> list[_Bar]:
    return _highest((_Bar(one.text, one.share) for one in explanation.words), MAX_WORDS)


def _facet_bars(explanation: Explanation) -> list[_Bar]:
    return _highest((_Bar(one.kind, one.share, one.text) for one in explanation.facets), MAX_FACETS)


def _highest(bars: Iterable[_Bar], limit: int) -> list[_Bar]:
    return sorted((bar for bar in bars if bar.share >= MIN_SHARE), key=lambda bar: -bar.share)[:limit]


# Streams and bars


def _draw_streams(sheet: _Sheet, explanation: Explanation) -> None:
    """One bar, cut into picture, words and persona."""
    shares = {name: getattr(explanation.stream_shares, name) for name in _STREAM_COLOURS}
    total = sum(shares.values())
    if total <= 0:
        return
    x, width = float(_MARGIN), _WIDTH - 2 * _MARGIN
    for name, share in shares.items():
        part = width * share / total
        if part >= 1:
            sheet.block(x=round(x), y=sheet.y, width=round(part) - 4, height=36, colour=_STREAM_COLOURS[name])
            x += part
    sheet.skip(50)
    x = float(_MARGIN)
    for name, share in shares.items():
        text = f"{_STREAM_NAMES[name]} {share / total:.0%}"
        sheet.block(x=round(x), y=sheet.y + 4, width=22, height=22, colour=_STREAM_COLOURS[name])
        sheet.label(text, x=round(x) + 34, y=sheet.y, size=30, anchor="la")
        x += width / 3
    sheet.skip(48)


def _draw_bars(sheet: _Sheet, title: str, bars: Sequence[_Bar], *, colour: tuple[int, int, int]) -> None:
    if not bars:
        return
    sheet.skip(_GAP)
    sheet.write(title, size=36)
    sheet.skip(6)
    for number, bar in enumerate(bars, start=1):
        _draw_bar(sheet, bar, number, longest=bars[0].share, colour=colour)


def _draw_bar(sheet: _Sheet, bar: _Bar, number: int, *, longest: float, colour: tuple[int, int, int]) -> None:
    size = 32
    name = bar.name if _is_drawable(bar.name, size) else f"no. {number}"
    middle = sheet.y + 24
    font = _font_for(name, size)
    sheet.label(_cut(name, font, _LABEL_WIDTH - 16, size), x=_MARGIN, y=middle, size=size, anchor="lm")
    x, width = _MARGIN + _LABEL_WIDTH, _WIDTH - 2 * _MARGIN - _LABEL_WIDTH - 110
    sheet.bar(x=x, y=middle - _BAR_HEIGHT // 2, width=width, filled=bar.share / longest, colour=colour)
    sheet.label(_percent(bar.share), x=_WIDTH - _MARGIN, y=middle, size=size, anchor="rm", colour=_FAINT)
    sheet.skip(50)
    if bar.text and _is_drawable(bar.text, 26):
        sheet.y -= 4
        sheet.write(_first_lines(bar.text, 26), size=26, colour=_FAINT)
        sheet.skip(10)


def _percent(share: float) -> str:
    return f"{share:.0%}"


# Pictures


def _draw_pictures(sheet: _Sheet, regions: Sequence[RegionShares], pictures: Sequence[Image.Image]) -> None:
    """One picture over the whole width, more in two columns; the same colour means the same share in all of them."""
    shown = [one for one in regions if one.image < len(pictures)]
    if not shown:
        return
    highest = max(max(one.shares, default=0.0) for one in shown)
    num_columns = 1 if len(shown) == 1 else 2
    width = (_WIDTH - 2 * _MARGIN - (num_columns - 1) * _GAP) // num_columns
    sheet.skip(_GAP)
    for start in range(0, len(shown), num_columns):
        row = [
            _heated(pictures[one.image], one, highest=highest, width=width)
            for one in shown[start : start + num_columns]
        ]
        for column, picture in enumerate(row):
            spare = (width - picture.width) // 2
            sheet.paste(picture, x=_MARGIN + column * (width + _GAP) + spare)
        sheet.skip(max(picture.height for picture in row) + _GAP)
    _draw_legend(sheet)


def _draw_legend(sheet: _Sheet) -> None:
    width, height = 420, 26
    ramp = Image.linear_gradient("L").rotate(90, expand=True).resize((width, height))
    sheet.label("mattered little", x=_MARGIN, y=sheet.y + 13, size=28, anchor="lm", colour=_FAINT)
    sheet.paste(_coloured(ramp), x=_MARGIN + 220)
    sheet.label("mattered most", x=_MARGIN + 240 + width, y=sheet.y + 13, size=28, anchor="lm", colour=_FAINT)
    sheet.skip(height + 12)


def _heated(photo: Image.Image, regions: RegionShares, *, highest: float, width: int) -> Image.Image:
    """The photo in grey, dim where nothing was looked at, glowing where much was."""
    max_height = _MAX_PICTURE_HEIGHT if width > _WIDTH // 2 else width
    scale = min(width / photo.width, max_height / photo.height)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    grey = photo.resize(size, Image.Resampling.LANCZOS).convert("L").convert("RGB")
    heat = _heat_of(regions, highest=highest).resize(size, Image.Resampling.BICUBIC)
    dim = grey.point(lambda value: round(value * 0.6))
    lit = Image.blend(grey, _coloured(heat), 0.5)
    return Image.composite(lit, dim, heat.point(lambda value: min(255, round(value * 1.5))))


def _heat_of(regions: RegionShares, *, highest: float) -> Image.Image:
    """`L` picture of one pixel a region."""
    heat = Image.new("L", (regions.columns, regions.rows))
    heat.putdata([round(255 * share / highest) if highest > 0 else 0 for share in regions.shares])
    return heat


def _coloured(heat: Image.Image) -> Image.Image:
    """Heat in the map's colours."""
    paletted = heat.convert("L").copy()
    paletted.putpalette(_palette())
    return paletted.convert("RGB")


@lru_cache(maxsize=1)
def _palette() -> bytes:
    steps = list(pairwise(_HEAT))
    colours = bytearray()
    for value in range(256):
        place = value / 255 * len(steps)
        first, second = steps[min(int(place), len(steps) - 1)]
        part = place - min(int(place), len(steps) - 1)
        colours += bytes(round(a + (b - a) * part) for a, b in zip(first, second, strict=True))
    return bytes(colours)


def _opened(data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MediaError("the picture cannot be drawn on: it is no longer a readable JPEG or PNG file") from error


def _looked_at(regions: Sequence[RegionShares]) -> str:
    """The place that mattered most, in words."""
    best = max(
        ((share, one, place) for one in regions for place, share in enumerate(one.shares)), default=None, key=_first
    )
    if best is None or best[0] <= 0:
        return ""
    _, one, place = best
    row, column = divmod(place, one.columns)
    across, down = _third(column, one.columns, ("left", "", "right")), _third(row, one.rows, ("upper", "", "lower"))
    words = " ".join(word for word in (down, across) if word)
    spot = {"upper": "the top", "lower": "the bottom", "": "the middle"}.get(words, words)
    return f"{spot} of picture {one.image + 1}" if len(regions) > 1 else f"{spot} of the picture"


def _first(candidate: tuple[float, RegionShares, int]) -> float:
    return candidate[0]


def _third(index: int, count: int, names: tuple[str, str, str]) -> str:
    return names[min(2, int((index + 0.5) / count * 3))]


# Text


def _drawable(text: str, size: int) -> str:
    """The text with nothing in it that its font would draw as a box."""
    has = _covers(_font_for(text, size))
    return "".join(char for char in _plain(text) if has(char)) if _font_for(text, size) is _own_font(size) else text


def _is_drawable(text: str, size: int) -> bool:
    """Whether enough of the text can be drawn to be read."""
    if _font_for(text, size) is not _own_font(size):
        return True
    letters = [char for char in text if not char.isspace()]
    has = _covers(_own_font(size))
    return 2 * sum(has(char) for char in _plain("".join(letters))) > len(letters)


def _plain(text: str) -> str:
    """Letters without accents and quotes without curls: what the font that Pillow carries knows."""
    parts = unicodedata.normalize("NFKD", text.translate(_LETTERS_WITHOUT_PARTS))
    return "".join(char for char in parts if not unicodedata.combining(char))


def _font_for(text: str, size: int) -> Font:
    """Pillow's own font, or one of this machine where only that one knows all the letters."""
    if all(map(_covers(_own_font(size)), text)):
        return _own_font(size)
    return next((font for font in _system_fonts(size) if all(map(_covers(font), text))), _own_font(size))


@lru_cache(maxsize=32)
def _own_font(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=32)
def _system_fonts(size: int) -> tuple[Font, ...]:
    fonts = []
    for name in SYSTEM_FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(fonts)


def _covers(font: Font) -> Callable[[str], bool]:
    """Whether `font` has a character; what it lacks, it draws as it draws a character that cannot be."""
    box = _glyph(font, "\U0010fffe")
    return lambda char: char.isspace() or _glyph(font, char) != box


@lru_cache(maxsize=4096)
def _glyph(font: Font, char: str) -> bytes:
    return bytes(font.getmask(char))


def _wrap(text: str, font: Font, *, max_width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        for piece in _pieces(word, font, max_width=max_width):
            longer = f"{lines[-1]} {piece}".strip()
            if font.getlength(longer) <= max_width:
                lines[-1] = longer
            else:
                lines.append(piece)
    return [line for line in lines if line]


def _pieces(word: str, font: Font, *, max_width: int) -> list[str]:
    """A word that is wider than a line, such as a sentence of a script without spaces, in pieces that fit."""
    pieces = [""]
    for char in word:
        if font.getlength(pieces[-1] + char) > max_width:
            pieces.append("")
        pieces[-1] += char
    return pieces


def _first_lines(text: str, size: int) -> str:
    font = _font_for(text, size)
    lines = _wrap(_drawable(text, size), font, max_width=_WIDTH - 2 * _MARGIN)
    kept = lines[:MAX_FACET_LINES]
    return " ".join(kept) if len(lines) == len(kept) else " ".join(kept)[:-3].rstrip() + "..."


def _cut(text: str, font: Font, width: int, size: int) -> str:
    text = _drawable(text, size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
