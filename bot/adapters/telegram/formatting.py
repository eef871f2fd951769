"""A model's Markdown as Telegram shows it: a text, and entities that say what is bold, code, a quote or a link.

Owns what the signs mean, and how long a text is once they are gone. Entities cannot be malformed the way Telegram's own
markup languages can, so a half-written `**word` is just that. Sends nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from telegram import MessageEntity

from bot.adapters.telegram.client import utf16_length

MAX_ENTITIES = 100
_WORD_JOINER = "\u2060"

# No mail address: there, a word ends before the @. What follows may become a name all the same: the server takes some
# signs out before it looks for one.
_MENTION = re.compile(rf"(?<!\w)@(?![ \n{_WORD_JOINER}]|\Z)")
# Only what the server, too, takes for a page's address, to its end: a mention within one rings nobody.
_URL = re.compile(
    r"(?<![\w@./:-])https?://(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}(?::\d{1,5})?[/?#][\w/?#@.~%&=+-]*",
    re.IGNORECASE | re.ASCII,
)
# `tg://user?id=…` would ring somebody.
_LINK = re.compile(r"(?:https?://|tg://(?!user\b))[^\s]+", re.IGNORECASE)
_LANGUAGE = re.compile(r"[\w+#.-]{1,32}(?=\s|$)")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
# What a table's drawn cell may be longer than the written one, on average.
_CELL_ROOM = 8
_RULER = "———"
_STYLES = {"strong": MessageEntity.BOLD, "em": MessageEntity.ITALIC, "s": MessageEntity.STRIKETHROUGH}
_MAX_NESTING = 20
_CODE = frozenset({MessageEntity.CODE, MessageEntity.PRE})
_SPOILER_MARK = "||"


@dataclass(frozen=True, slots=True)
class FormattedText:
    """A text as people see it, and what is special in it."""

    text: str
    entities: tuple[MessageEntity, ...] = ()

    def after(self, heading: str) -> "FormattedText":
        """The same behind a bold line of its own."""
        shift = utf16_length(heading) + 1
        moved = (
            MessageEntity(each.type, each.offset + shift, each.length, url=each.url, language=each.language)
            for each in self.entities
        )
        bold = MessageEntity(MessageEntity.BOLD, 0, utf16_length(heading))
        return FormattedText(f"{heading}\n{self.text}", (bold, *moved)[:MAX_ENTITIES])


def formatted_length(text: str) -> int:
    """At most so long is `format_markdown(text)`, in UTF-16 code units. A longer text is never shorter."""
    return utf16_length(text) + text.count("@") + _CELL_ROOM * text.count("|")


@lru_cache(maxsize=32)
def format_markdown(text: str) -> FormattedText:
    """`text` with its Markdown as entities. No mention in it rings anybody."""
    tokens, writer = _parser().parse(text), _Writer()
    if any(token.level >= _MAX_NESTING - 2 for token in tokens):
        return plain_text(text)  # the parser leaves out what is nested deeper
    _write_blocks(tokens, text.split("\n"), writer)
    formatted = writer.finish()
    is_shown = formatted.text and utf16_length(formatted.text) <= formatted_length(text)
    return formatted if is_shown else plain_text(text)


def plain_text(text: str) -> FormattedText:
    """`text` as it is, with nothing special in it. No mention in it rings anybody."""
    return FormattedText(_with_joiners(text, _mentions(text)))


@dataclass(eq=False, slots=True)
class _Style:
    """One stretch of bold, one link and so on: compared by identity, so that neighbours stay two."""

    type: str
    url: str | None = None
    language: str | None = None


_Run = tuple[str, tuple[_Style, ...]]


@dataclass(slots=True)
class _Writer:
    """The text so far, in runs of one style."""

    runs: list[_Run] = field(default_factory=list)
    open: list[_Style] = field(default_factory=list)
    is_at_line_start: bool = True

    def write(self, text: str) -> None:
        if text:
            self.runs.append((text, tuple(self.open)))
            self.is_at_line_start = text.endswith("\n")

    def write_code(self, text: str, style: _Style) -> None:
        """Code: nothing in it is a mention while it is shown as code, and no other style holds for it."""
        if text:
            self.runs.append((text, (style,)))
            self.is_at_line_start = text.endswith("\n")

    def begin(self, style: _Style) -> None:
        self.open.append(style)

    def end(self, type_: str) -> None:
        for at in range(len(self.open) - 1, -1, -1):
            if self.open[at].type == type_:
                del self.open[at]
                return

    def finish(self) -> FormattedText:
        written = self.runs
        self.runs = self._ringing_nobody(written, is_code_shown=True)
        formatted, left_out = self._formatted()
        if any(entity.type in _CODE for entity in left_out):
            self.runs = self._ringing_nobody(written, is_code_shown=False)
            formatted, _ = self._formatted()
        return formatted

    def _ringing_nobody(self, runs: list[_Run], *, is_code_shown: bool) -> list[_Run]:
        """`runs` with a sign in each mention. An @ and a name may stand in different ones."""
        mentions, position, quiet = _mentions("".join(text for text, _ in runs)), 0, []
        for text, styles in runs:
            own = [at - position for at in mentions if position <= at < position + len(text)]
            is_code = is_code_shown and any(style.type in _CODE for style in styles)
            quiet.append((text if is_code else _with_joiners(text, own), styles))
            position += len(text)
        return quiet

    def _formatted(self) -> tuple[FormattedText, list[MessageEntity]]:
        """The text with as many entities as are taken, and those that may be left out: a heading takes another one."""
        text = "".join(run for run, _ in self.runs)
        leading = utf16_length(text) - utf16_length(text.lstrip())
        end = utf16_length(text.rstrip())
        stretches = ((style, max(start, leading), min(stop, end)) for style, start, stop in self._stretches())
        entities = [
            MessageEntity(style.type, start - leading, stop - start, url=style.url, language=style.language)
            for style, start, stop in stretches
            if start < stop
        ]
        # The outer one of two that begin together comes first.
        entities.sort(key=lambda entity: (entity.offset, -entity.length))
        return FormattedText(text.strip(), tuple(entities[:MAX_ENTITIES])), entities[MAX_ENTITIES - 1 :]

    def _stretches(self) -> Iterator[tuple[_Style, int, int]]:
        """Where each style holds, without the white space at its ends: the server would refuse some of that."""
        going: dict[_Style, tuple[int, int]] = {}
        position = 0
        for run, styles in self.runs:
            for style in [style for style in going if style not in styles]:
                yield style, *going.pop(style)
            start, position = position, position + utf16_length(run)
            stop = position
            if not any(style.type in _CODE for style in styles):
                start += utf16_length(run) - utf16_length(run.lstrip())
                stop -= utf16_length(run) - utf16_length(run.rstrip())
            if start < stop:
                for style in styles:
                    going[style] = (going[style][0] if style in going else start, stop)
        for style, (start, stop) in going.items():
            yield style, start, stop


# --- blocks


def _write_blocks(tokens: Sequence[Token], lines: list[str], writer: _Writer) -> None:
    layout = _Layout(lines, writer)
    at = 0
    while at < len(tokens):
        token = tokens[at]
        match token.type:
            case "inline":
                layout.start_block(token)
                _write_inline(token.children or [], writer)
            case "fence":
                layout.start_block(token)
                writer.write_code(token.content.removesuffix("\n"), _code_block(token.info))
            case "hr":
                layout.start_block(token)
                writer.write(_RULER)
            case "table_open":
                layout.start_block(token)
                writer.write_code(_table(layout.source(token)), _Style(MessageEntity.PRE))
                at = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
            case "heading_open":
                writer.begin(_Style(MessageEntity.BOLD))
            case "heading_close":
                writer.end(MessageEntity.BOLD)
            case "blockquote_open":
                layout.open_quote(token)
            case "blockquote_close":
                layout.close_quote()
            case "bullet_list_open" | "ordered_list_open":
                layout.depth += 1
            case "bullet_list_close" | "ordered_list_close":
                layout.depth -= 1
            case "list_item_open":
                layout.open_item(token)
        at += 1
    layout.finish()


class _Layout:
    """Where lines begin: blocks stand as far apart as in the source, items behind their marks."""

    def __init__(self, lines: list[str], writer: _Writer) -> None:
        self.depth = 0
        self._lines = lines
        self._writer = writer
        self._num_quotes = 0
        self._marks = ""
        self._last_line = 0
        self._has_begun = False

    def source(self, token: Token) -> list[str]:
        start, stop = token.map or (0, 0)
        return self._lines[start:stop]

    def open_item(self, token: Token) -> None:
        self._go_to_line_of(token)
        is_first_on_line = not self._marks
        indent = "  " * (self.depth - 1) if is_first_on_line else ""
        self._marks += f"{indent}{token.info}{token.markup} " if token.info else f"{indent}• "

    def open_quote(self, token: Token) -> None:
        self._num_quotes += 1
        if self._num_quotes == 1:
            self._go_to_line_of(token)
            self._flush_marks()
            self._writer.begin(_Style(MessageEntity.BLOCKQUOTE))

    def close_quote(self) -> None:
        self._num_quotes -= 1
        if self._num_quotes == 0:
            self._writer.end(MessageEntity.BLOCKQUOTE)

    def start_block(self, token: Token) -> None:
        self._go_to_line_of(token)
        self._flush_marks()
        self._last_line = max(self._last_line, self._last_content_line(token))
        self._has_begun = True

    def finish(self) -> None:
        """The last item may have had no words."""
        self._flush_marks()

    def _flush_marks(self) -> None:
        if self._marks:
            self._writer.write(self._marks)
            self._marks, self._has_begun = "", True

    def _go_to_line_of(self, token: Token) -> None:
        start = token.map[0] if token.map else self._last_line
        if self._marks and start > self._last_line:
            self._writer.write(self._marks.rstrip())  # an item without words
            self._marks, self._has_begun = "", True
        if self._has_begun and start > self._last_line:
            is_apart = any(not line.strip(" \t>") for line in self._lines[self._last_line + 1 : start])
            self._writer.write("\n\n" if is_apart else "\n")
        self._last_line = max(self._last_line, start)

    def _last_content_line(self, token: Token) -> int:
        start, stop = token.map or (self._last_line, self._last_line + 1)
        return max(start, stop - 1)


def _code_block(info: str) -> _Style:
    found = _LANGUAGE.match(info)
    return _Style(MessageEntity.PRE, language=found.group() if found else None)


def _table(source: Sequence[str]) -> str:
    """The rows with their columns under each other; as they were written, where that would be longer."""
    written = "\n".join(line.lstrip("> \t").rstrip() for line in source)
    rows = [[cell.strip() for cell in _CELL_BORDER.split(line.strip().strip("|"))] for line in written.split("\n")]
    rows = [row for at, row in enumerate(rows) if at != 1]  # the line of dashes
    width = max(map(len, rows))
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    columns = [max(map(len, column)) for column in zip(*full, strict=True)]
    drawn = [" │ ".join(cell.ljust(size) for cell, size in zip(row, columns, strict=True)).rstrip() for row in full]
    shown = "\n".join([drawn[0], "─" * min(max(map(len, drawn)), 24), *drawn[1:]])
    return shown if utf16_length(shown) <= formatted_length(written) else written


# --- words


def _write_inline(tokens: Sequence[Token], writer: _Writer) -> None:
    links: list[tuple[Token, int]] = []
    for token in tokens:
        name = token.type.removesuffix("_open").removesuffix("_close")
        match token.type:
            case "text" | "text_special":
                writer.write(token.content)
            case "softbreak" | "hardbreak":
                writer.write("\n")
            case "code_inline":
                writer.write_code(token.content, _Style(MessageEntity.CODE))
            case "strong_open" | "em_open" | "s_open":
                writer.begin(_Style(_STYLES[name]))
            case "strong_close" | "em_close" | "s_close":
                writer.end(_STYLES[name])
            case "spoiler":
                writer.begin(_Style(MessageEntity.SPOILER))
                _write_inline(token.children or [], writer)
                writer.end(MessageEntity.SPOILER)
            case "link_open":
                writer.begin(_Style(MessageEntity.TEXT_LINK, url=str(token.attrs["href"])))
                links.append((token, len(writer.runs)))
            case "link_close":
                link, num_runs = links.pop()
                if not any(run.strip() for run, _ in writer.runs[num_runs:]):
                    writer.write(str(link.attrs["href"]))
                writer.end(MessageEntity.TEXT_LINK)
                writer.write(_in_brackets(str(link.attrs.get("title", ""))))
            case "image":
                writer.begin(_Style(MessageEntity.TEXT_LINK, url=str(token.attrs["src"])))
                writer.write(token.content or str(token.attrs["src"]))
                writer.end(MessageEntity.TEXT_LINK)
                writer.write(_in_brackets(str(token.attrs.get("title", ""))))
            case _:
                writer.write(token.content)


def _in_brackets(title: str) -> str:
    return f" ({title})" if title else ""


def _mentions(text: str) -> list[int]:
    """Where an @ stands that might ring somebody. Addresses of pages may have one."""
    if "@" not in text:
        return []
    urls = [url.span() for url in _URL.finditer(text)]
    found = (match.start() for match in _MENTION.finditer(text))
    return [at for at in found if not any(start <= at < stop for start, stop in urls)]


def _with_joiners(text: str, mentions: Sequence[int]) -> str:
    """`text` with an invisible sign behind each @ of `mentions`."""
    pieces, position = [], 0
    for at in mentions:
        pieces += [text[position : at + 1], _WORD_JOINER]
        position = at + 1
    return "".join([*pieces, text[position:]])


# --- the parser


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    """CommonMark with tables, strike-through and spoilers; without what models do not mean: indented code, HTML,
    underlined headings, references and character names."""
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING})
    parser.enable(["table", "strikethrough"])
    parser.disable(["code", "html_block", "html_inline", "lheading", "reference", "entity"])
    parser.inline.ruler.before("emphasis", "spoiler", _parse_spoiler)
    parser.inline.add_terminator_char(_SPOILER_MARK[0])
    parser.validateLink = _is_link  # type: ignore[method-assign]
    parser.normalizeLink = _as_it_is  # type: ignore[method-assign]
    parser.normalizeLinkText = _as_it_is  # type: ignore[assignment, method-assign]
    return parser


def _is_link(url: str) -> bool:
    return _LINK.fullmatch(url) is not None


def _as_it_is(url: str) -> str:
    return url


def _parse_spoiler(state: StateInline, silent: bool) -> bool:
    """`||hidden||`, on one line."""
    if not state.src.startswith(_SPOILER_MARK, state.pos):
        return False
    start = state.pos + len(_SPOILER_MARK)
    stop = state.src.find(_SPOILER_MARK, start, state.posMax)
    hidden = state.src[start:stop] if stop > 0 else ""
    if not hidden.strip() or "\n" in hidden:
        return False
    if not silent:
        token = state.push("spoiler", "", 0)
        token.children = []
        state.md.inline.parse(hidden, state.md, state.env, token.children)
    state.pos = stop + len(_SPOILER_MARK)
    return True
