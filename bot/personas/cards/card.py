"""A character card as it was written, and what it says whatever its version.

Owns the versions of the specification and their oddities in the wild. Knows no persona, and nothing of containers but
that they hold JSON and pictures. `raw` is never changed: what was not understood is still there when it is written.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from bot.personas.cards.containers import CardError, Json, NoCard, unpack

Version = Literal[1, 2, 3]
SPECS: Mapping[Version, str] = {2: "chara_card_v2", 3: "chara_card_v3"}
V1_FIELDS = ("name", "description", "personality", "scenario", "first_mes", "mes_example")
# What other programs of the time called them, and the field for notes that SillyTavern had before V2.
_OLD_NAMES = {
    "name": ("char_name",),
    "description": ("char_persona",),
    "scenario": ("world_scenario",),
    "first_mes": ("char_greeting",),
    "mes_example": ("example_dialogue",),
    "creator_notes": ("creatorcomment",),
}
_NUMBER = re.compile(r"\s*v?(\d{1,3}(?:\.\d{1,3})?)")
_DATA_URI = re.compile(r"data:[^,;]*;base64,", re.IGNORECASE)
_EMBEDDED = re.compile(r"(?:embedd?ed://|__asset:)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asset:
    """A picture or another file that a card names. `type` is such as `icon` or `emotion`, `uri` says where it is."""

    type: str
    uri: str
    name: str
    ext: str

    def path(self) -> str | None:
        """Its key among the card's assets; `None` where it does not come with the card."""
        return _EMBEDDED.sub("", self.uri, count=1) if _EMBEDDED.match(self.uri) else None

    def is_default(self) -> bool:
        """Whether it is the picture that the card lies in."""
        return self.uri.lower().startswith("ccdefault:")

    def is_elsewhere(self) -> bool:
        """Whether it would have to be fetched, which is never done."""
        return self.path() is None and not self.is_default() and not _DATA_URI.match(self.uri)


@dataclass(frozen=True, slots=True)
class Card:
    """A character card. `assets` are the files that came with it, `image` the PNG that it came in."""

    spec: Version
    raw: Json
    assets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    image: bytes | None = field(default=None, repr=False)

    def text(self, name: str) -> str:
        """The text in the field `name`; empty where there is none."""
        return as_text(self.value(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts in the list `name`, without the empty ones; a single text is a list of one."""
        value = self.value(name)
        items = value if isinstance(value, list) else [value]
        return tuple(text for item in items if (text := as_text(item)).strip())

    def part(self, name: str) -> Json:
        """The object in the field `name`; empty where there is none."""
        value = self.value(name)
        return value if isinstance(value, dict) else {}

    def value(self, name: str) -> object:
        """What the field `name` holds, in its data or, where cards are mixed up, beside it."""
        data = self.data
        for key in (name, *_OLD_NAMES.get(name, ())):
            for holder in (data, self.raw):
                if holder.get(key) is not None:
                    return holder[key]
        return None

    @property
    def data(self) -> Json:
        """The object that holds the fields."""
        data = self.raw.get("data")
        return data if self.spec > 1 and isinstance(data, dict) else self.raw

    def listed_assets(self) -> Iterator[Asset]:
        """The assets that the card names, as far as they can be understood."""
        listed = self.value("assets")
        for item in listed if isinstance(listed, list) else ():
            if isinstance(item, dict) and (uri := as_text(item.get("uri"))):
                kind, name, ext = (as_text(item.get(key)).strip().lower() for key in ("type", "name", "ext"))
                yield Asset(kind, uri, name, ext)

    def __str__(self) -> str:
        # Not the dataclass's: it would put a stranger's whole text into a log.
        return f"a character card of version {self.spec}"


def parse_card(data: bytes, *, name: str) -> Card:
    """The card in the file `data`. `name` is the file's, which a card without a name is called by.

    Raises `CardError` with what is wrong, `NoCard` where it is no card at all.
    """
    contents = unpack(data)
    spec = version_of(contents.raw)
    if spec is None:
        raise _not_a_card(contents.raw)
    card = Card(spec, contents.raw, contents.assets, contents.image)
    if not any(card.text(field).strip() for field in V1_FIELDS):
        raise CardError("the card is empty: it has no name, no description and no greeting")
    if not card.text("name").strip() and not PurePath(name).stem.strip():
        raise CardError("the card has no name; write one into its field `name`")
    return card


def version_of(raw: Json) -> Version | None:
    """Which version `raw` is written in; `None` where it is no card."""
    spec = as_text(raw.get("spec")).strip().lower()
    data = raw.get("data")
    fields = {*raw, *(data if isinstance(data, dict) else ())}
    has_fields = bool(fields & {"name", "char_name"}) and bool(
        fields & {"description", "personality", "first_mes", "char_persona", "char_greeting", "mes_example"}
    )
    if spec.startswith("chara_card_v"):
        number = _number(spec.removeprefix("chara_card_")) or 2
        return 3 if number >= 3 else 2 if number >= 2 else 1
    if not has_fields:
        return None
    if isinstance(data, dict) and "name" in data:
        return 3 if (_number(raw.get("spec_version")) or 2) >= 3 else 2
    return 1


def spec_number(raw: Json) -> float | None:
    """The version that a card claims, as a number: `3.1` is newer than what is known, and read all the same."""
    return _number(raw.get("spec_version"))


def as_text(value: object) -> str:
    """`value` as text: numbers as they are written, anything that is no text as nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def _number(value: object) -> float | None:
    match = _NUMBER.match(as_text(value))
    return float(match[1]) if match else None


def _not_a_card(raw: Json) -> CardError:
    data = raw.get("data")
    if isinstance((data if isinstance(data, dict) else raw).get("entries"), dict | list):
        return NoCard(
            "this is a lorebook without a character; in SillyTavern, link it to a character and export that one"
        )
    if "spec" in raw or {"name", "description"} <= raw.keys():
        return CardError("this JSON file seems to be a character card, but it has no fields such as `first_mes`")
    return NoCard("this JSON file holds no character card: it has no `spec`, and no `name` with a `description`")
