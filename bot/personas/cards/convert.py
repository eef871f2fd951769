"""A card in another version of the specification, and as a file.

Owns what each version can say, and where the rest is kept meanwhile. Knows no persona.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from bot.personas.cards.card import SPECS, V1_FIELDS, Card, Version, as_text
from bot.personas.cards.containers import Container, Contents, Json, bare_png, pack
from bot.personas.cards.pictures import plain_picture, png_from

# Where a card of version 2 keeps what only version 3 can say, so that it comes back.
ICON_PATH = "assets/icon/images/main.png"
BESIDE = "This card is of version 3, and this is what version 2 can say of it: some things may be missing here."
KEPT = "chara_card_v3"
_ONLY_V3 = (
    "assets",
    "nickname",
    "creator_notes_multilingual",
    "source",
    "group_only_greetings",
    "creation_date",
    "modification_date",
)
_NEW_IN_V2: Mapping[str, Any] = {
    "creator_notes": "",
    "system_prompt": "",
    "post_history_instructions": "",
    "alternate_greetings": [],
    "tags": [],
    "creator": "",
    "character_version": "",
    "extensions": {},
}


def to_version(card: Card, version: Version) -> Card:
    """`card` as the specification's `version` says it. What is lost then, `losses` tells."""
    raw = deepcopy(card.raw)
    spec = card.spec
    if spec == 1 < version:
        raw, spec = _from_1_to_2(raw), 2
    if spec == 2 < version:
        raw = _from_2_to_3(raw)
    elif spec == 3 > version:
        raw, spec = _from_3_to_2(raw), 2
    if spec == 2 > version:
        raw = _from_2_to_1(Card(2, raw))
    return Card(version, raw, card.assets, card.image)


def losses(card: Card, version: Version) -> tuple[str, ...]:
    """Which fields of `card` version `version` has no place for. Version 2 keeps all of them."""
    if version > 1 or card.spec == 1:
        return ()
    return tuple(name for name, value in card.data.items() if name not in V1_FIELDS and value not in (None, "", [], {}))


def write_card(card: Card, container: Container) -> bytes:
    """`card` as a file, in its own version. A PNG is its own picture, its icon, or a plain one.

    Raises `bot.personas.cards.containers.CardError`.
    """
    if container == "json":
        return pack(Contents(card.raw), "json")
    if container == "charx":
        return pack(Contents(card.raw, _with_icon(card)), "charx")
    image = card.image or png_from(card) or plain_picture(card.text("name"))
    return pack(Contents(card.raw, card.assets, image), "png", older=_for_older(card) if card.spec == 3 else None)


def _for_older(card: Card) -> Json:
    """What goes beside a card of version 3: most programs read only the one before, and people are told so."""
    raw = to_version(card, 2).raw
    raw["data"]["creator_notes"] = "\n\n".join(filter(None, [BESIDE, as_text(raw["data"].get("creator_notes"))]))
    return raw


def _with_icon(card: Card) -> Mapping[str, bytes]:
    """The card's files, and the picture that it came in, which a zip has no other place for."""
    image = card.image and bare_png(card.image)
    is_there = any(path.startswith("assets/icon/") for path in card.assets)
    return {**card.assets, ICON_PATH: image} if image and not is_there else card.assets


def _from_1_to_2(raw: Json) -> Json:
    data: Json = {name: as_text(raw.get(name)) for name in V1_FIELDS} | deepcopy(dict(_NEW_IN_V2))
    data["creator_notes"] = as_text(raw.get("creatorcomment"))
    # The old fields stay: programs that read nothing newer find them there.
    return {**raw, "spec": SPECS[2], "spec_version": "2.0", "data": data}


def _from_2_to_3(raw: Json) -> Json:
    data = _data_of(raw)
    extensions = data.get("extensions")
    kept = extensions.pop(KEPT, None) if isinstance(extensions, dict) else None
    kept = kept if isinstance(kept, dict) else {}
    number = kept.pop("spec_version", "3.0")
    data |= kept
    data.setdefault("group_only_greetings", [])
    return {**raw, "spec": SPECS[3], "spec_version": number, "data": data}


def _from_3_to_2(raw: Json) -> Json:
    data = _data_of(raw)
    kept = {name: data.pop(name) for name in _ONLY_V3 if name in data}
    if not kept.get("group_only_greetings", True):
        del kept["group_only_greetings"]  # an empty list, which comes back by itself
    if raw.get("spec_version", "3.0") != "3.0":
        kept["spec_version"] = raw["spec_version"]
    if kept:
        extensions = data.get("extensions")
        data["extensions"] = {**(extensions if isinstance(extensions, dict) else {}), KEPT: kept}
    return {**raw, "spec": SPECS[2], "spec_version": "2.0", "data": data}


def _from_2_to_1(card: Card) -> Json:
    beside = {name: value for name, value in card.raw.items() if name not in ("spec", "spec_version", "data")}
    if "data" not in card.raw:
        beside = {}
    return {**beside, **{name: card.text(name) for name in V1_FIELDS}}


def _data_of(raw: Json) -> Json:
    """The fields of a card of version 2 or 3, also where they lie beside their place."""
    data = raw.get("data")
    if isinstance(data, dict):
        return data
    return {name: value for name, value in raw.items() if name not in ("spec", "spec_version", "data")}
