"""A YAML text as plain values that remember where they were written.

Owns YAML: syntax errors in plain words, duplicate keys, aliases and their limits. Knows nothing of personas. Values are
those of JSON; a date stays the text that the author wrote.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import yaml
from pydantic import JsonValue
from yaml.constructor import SafeConstructor
from yaml.error import Mark, MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

MAX_DOCUMENT_BYTES = 512 * 1024
# What aliases may unfold to. Without a limit ten lines of YAML become gigabytes.
MAX_UNFOLDED_BYTES = 8 * MAX_DOCUMENT_BYTES
BYTES_PER_VALUE = 24
MAX_DEPTH = 32

Location = tuple[str | int, ...]
"""The way to a value from the top: keys, and positions in lists from 0."""

_STANDARD_TAG = "tag:yaml.org,2002:"
_KEPT_AS_TEXT = frozenset({"str", "timestamp", "value", "merge"})


class Place(NamedTuple):
    """Where something is written. Both count from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong in a text; `place` is `None` where it is about the whole of it."""

    place: Place | None
    message: str


class UnreadableDocument(Exception):
    """The text is no YAML mapping at all, so there is nothing to look at further."""

    def __init__(self, place: Place | None, message: str) -> None:
        super().__init__(message)
        self.mistake = Mistake(place, message)


@dataclass(slots=True)
class Document:
    """What was read. `spellings` has the author's text of values that YAML takes for a number, truth value or null."""

    values: dict[str, JsonValue] = field(default_factory=dict)
    places: dict[Location, Place] = field(default_factory=dict)
    key_places: dict[Location, Place] = field(default_factory=dict)
    spellings: dict[Location, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


def parse_document(data: bytes) -> Document:
    """The YAML mapping in `data`. Raises `UnreadableDocument`; smaller mistakes are in the document."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UnreadableDocument(
            None, f"the file is larger than {MAX_DOCUMENT_BYTES // 1024} KiB; a persona is a short text, split it"
        )
    root = _compose(_decode(data))
    if root is None:
        raise UnreadableDocument(None, "the file is empty; `commedia persona new NAME` writes one to start from")
    if not isinstance(root, MappingNode):
        raise UnreadableDocument(_place(root.start_mark), "the file must consist of `key: value` lines")
    document = Document()
    document.values = _Unfolding(document).mapping(root, ())
    return document


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableDocument(None, "the file is saved as UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        raise UnreadableDocument(
            _end_of(before), f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _compose(text: str) -> Node | None:
    # Not the C loader: it recurses in C, where a deeply nested file ends the process.
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except ReaderError as error:
        place = _end_of(text[: error.position])
        raise UnreadableDocument(
            place, f"a control character (U+{ord(text[error.position]):04X}) is in the text; remove it"
        ) from None
    except MarkedYAMLError as error:
        raise _explained(error, text) from None
    except RecursionError:
        raise UnreadableDocument(None, "lists and mappings are nested too deeply") from None


class _Unfolding:
    """One walk from nodes to values that notes places and mistakes in `document`."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._constructor = SafeConstructor()
        self._num_bytes = 0
        self._open: list[Node] = []

    def mapping(self, node: Node, location: Location) -> dict[str, JsonValue]:
        values: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            key_place = _place(key_node.start_mark)
            if not isinstance(key_node, ScalarNode):
                self._report(key_place, "a key must be a plain word; if this is a text, put it in quotes")
            elif key_node.tag == f"{_STANDARD_TAG}merge":
                self._report(key_place, "merging with `<<` is not supported; write the lines out")
            elif key_node.value in values:
                first = self._document.key_places[(*location, key_node.value)]
                self._report(key_place, f"`{key_node.value}` is already in line {first.line}; keep one of them")
            else:
                here = (*location, key_node.value)
                self._document.key_places[here] = key_place
                values[key_node.value] = self._value(value_node, here)
        return values

    def _value(self, node: Node, location: Location) -> JsonValue:
        place = _place(node.start_mark)
        self._document.places[location] = place
        if node in self._open:
            self._report(place, f"`*` refers to something that contains itself, at line {place.line}; write it out")
            return None
        if len(self._open) >= MAX_DEPTH:
            raise UnreadableDocument(place, f"lists and mappings are nested deeper than {MAX_DEPTH} levels")
        self._charge(node)
        self._open.append(node)
        try:
            if isinstance(node, MappingNode):
                return self.mapping(node, location)
            if isinstance(node, SequenceNode):
                return [self._value(item, (*location, number)) for number, item in enumerate(node.value)]
            return self._scalar(cast(ScalarNode, node), location)
        finally:
            self._open.pop()

    def _scalar(self, node: ScalarNode, location: Location) -> JsonValue:
        text = str(node.value)
        kind = node.tag.removeprefix(_STANDARD_TAG)
        if kind in _KEPT_AS_TEXT:
            return text
        if kind == "null":
            if location in self._document.key_places:
                self._document.places[location] = self._document.key_places[location]
            return None
        self._document.spellings[location] = text
        try:
            if kind == "bool":
                return bool(self._constructor.construct_yaml_bool(node))
            if kind == "int":
                return int(self._constructor.construct_yaml_int(node))
            if kind == "float":
                return float(self._constructor.construct_yaml_float(node))
        except (ArithmeticError, ValueError, LookupError):
            return text
        self._report(_place(node.start_mark), f"the tag `{_tag_name(node.tag)}` is not supported; remove it")
        return text

    def _charge(self, node: Node) -> None:
        self._num_bytes += BYTES_PER_VALUE + (len(node.value) if isinstance(node, ScalarNode) else 0)
        if self._num_bytes > MAX_UNFOLDED_BYTES:
            raise UnreadableDocument(
                _place(node.start_mark), "aliases (`*name`) unfold to far more text than the file holds; write it out"
            )

    def _report(self, place: Place, message: str) -> None:
        self._document.mistakes.append(Mistake(place, message))


def _explained(error: MarkedYAMLError, text: str) -> UnreadableDocument:
    """A syntax error as its author can mend it. The order matters: from special to general."""
    problem, context = error.problem or "", error.context or ""
    here, started = error.problem_mark, error.context_mark or error.problem_mark
    if "'\\t'" in problem or (here and re.match(r" *\t", _line_at(text, here))):
        return _unreadable(here, "a tab is used for indentation; use spaces")
    if "alias" in f"{problem} {context}" or "anchor" in f"{problem} {context}":
        return _unreadable(started, "a text that begins with `*` or `&` must be in quotes")
    if "quoted scalar" in context and "end of stream" in problem:
        return _unreadable(started, "this quote is never closed")
    if "unknown escape character" in problem or "escape sequence" in problem:
        return _unreadable(here, "a backslash has a meaning inside double quotes; use single quotes around the text")
    if problem.startswith("mapping values are not allowed"):
        return _unreadable(here, 'a text with ": " in it must be in quotes; if this is a key, mend its indentation')
    if problem.startswith("could not find expected ':'"):
        return _unreadable(started, "this line has no `key:`; mend its indentation, or put the text in quotes")
    if match := re.match(r"found character (.+) that cannot start any token", problem):
        return _unreadable(here, f"a text that begins with {match[1]} must be in quotes")
    if match := re.match(r"expected ',' or '([]}])'", problem):
        return _unreadable(started, f"a comma or the closing `{match[1]}` is missing for what begins here")
    if here and "{{" in _line_at(text, here):
        return _unreadable(here, "a text that begins with `{{` must be in quotes")
    if problem.startswith("expected <block end>"):
        return _unreadable(here, "this does not fit the lines above; mend the indentation, or the quotes of the text")
    if "single document" in context:
        return _unreadable(here, "`---` begins a second document; keep one persona a file")
    return _unreadable(here or started, f"this is not valid YAML: {', '.join(filter(None, (context, problem)))}")


def _unreadable(mark: Mark | None, message: str) -> UnreadableDocument:
    return UnreadableDocument(_place(mark) if mark else None, message)


def _line_at(text: str, mark: Mark) -> str:
    lines = text.splitlines()
    return lines[mark.line] if mark.line < len(lines) else ""


def _tag_name(tag: str) -> str:
    return f"!!{tag.removeprefix(_STANDARD_TAG)}" if tag.startswith(_STANDARD_TAG) else tag


def _place(mark: Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _end_of(text: str) -> Place:
    """Where the character after `text` stands."""
    return Place(text.count("\n") + 1, len(text) - text.rfind("\n"))
