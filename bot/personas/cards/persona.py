"""A card as a persona, and a persona as a card.

Owns which field of the one is which of the other. What a card says and a persona does not is kept with the persona, as
the card was written; what a persona says and a card cannot goes into the card's `extensions.commedia`. So both come
back equal. Knows no file and no container.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pydantic import JsonValue, ValidationError

from bot.personas.cards.card import SPECS, Card, as_text, spec_number, version_of
from bot.personas.cards.containers import PNG_SIGNATURE, CardError, Json
from bot.personas.cards.convert import to_version
from bot.personas.cards.examples import examples_from, script_from
from bot.personas.cards.lore import book_from, lore_from, note_from
from bot.personas.cards.pictures import clean_png, face_assets
from bot.personas.cards.texts import clean_line, clean_text, first_sentence, guess_language
from engine.persona import Expression, Persona

# Where a persona keeps its card, and where a card keeps its persona.
KEPT_CARD = "character_card"
OWN_EXTENSION = "commedia"

MAX_TEXT_LENGTH = 100_000
MAX_NAME_LENGTH = 80
MAX_LINE_LENGTH = 500
MAX_SUMMARY_LENGTH = 200
MAX_TRAITS = 20
MAX_TRAIT_LENGTH = 40
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")

# Which fields of a card a persona's are read from: where they were changed, what `extensions.commedia` says is old.
_READ_FROM: Mapping[str, tuple[str, ...]] = {
    "name": ("name",),
    "nickname": ("nickname",),
    "summary": ("description", "personality"),
    "identity": ("description",),
    "look": ("description",),
    "background": ("description", "personality"),
    "traits": ("personality", "description"),
    "voice": ("description",),
    "goals": ("description",),
    "boundaries": ("description",),
    "scenario": ("scenario",),
    "greetings": ("first_mes", "alternate_greetings"),
    "group_greetings": ("group_only_greetings",),
    "examples": ("mes_example",),
    "system_prompt": ("system_prompt",),
    "post_history_instructions": ("post_history_instructions",),
    "lore": ("character_book",),
    "lorebook": ("character_book",),
    "notes": ("creator_notes",),
    "tags": ("tags",),
    "creator": ("creator",),
    "version": ("character_version",),
}


@dataclass(frozen=True, slots=True)
class Understanding:
    """The persona that a card describes, and what of the card has no effect here."""

    persona: Persona
    warnings: tuple[str, ...] = ()


def persona_from_card(card: Card, *, id: str) -> Persona:  # noqa: A002 - it is what the field is called
    """The persona that `card` describes, called `id`. Raises `CardError` where it cannot be one."""
    return understand(card, id=id).persona


def understand(card: Card, *, id: str) -> Understanding:  # noqa: A002 - it is what the field is called
    """The persona that `card` describes, and what of it has no effect. Raises `CardError`."""
    understanding = _understood(card, id)
    persona = understanding.persona
    if OWN_EXTENSION in _extensions(card) and _built(persona, {}).raw == card.raw:
        return understanding  # nobody changed it since it was written here
    text = json.dumps({"spec": card.spec, "raw": card.raw}, allow_nan=False)
    kept: dict[str, JsonValue] = {**persona.extensions, KEPT_CARD: text}
    return Understanding(persona.model_copy(update={"extensions": kept}), understanding.warnings)


def card_from_persona(
    persona: Persona, *, avatar: bytes | None = None, files: Mapping[str, bytes] | None = None
) -> Card:
    """`persona` as a card: the very one that it was read from, else one of version 3.

    `avatar` is its picture, `files` are others that it names, by their names. Raises `CardError`.
    """
    kept = _kept_card(persona)
    found = dict(files or {})
    image = avatar if avatar is None or avatar.startswith(PNG_SIGNATURE) else clean_png(avatar)
    if kept is not None and persona_from_card(kept, id=persona.id) == persona:
        return Card(kept.spec, kept.raw, found, image)
    return Card(3, _built(persona, _data_of(kept)).raw, found, image)


def _kept_card(persona: Persona) -> Card | None:
    text = persona.extensions.get(KEPT_CARD)
    if not isinstance(text, str):
        return None
    try:
        kept = json.loads(text)
    except (ValueError, RecursionError):
        return None
    raw = kept.get("raw") if isinstance(kept, dict) else None
    if not isinstance(raw, dict) or (spec := version_of(raw)) is None:
        return None
    return Card(spec, raw)


def _data_of(card: Card | None) -> Json:
    return dict(to_version(card, 3).data) if card is not None else {}


# A card as a persona


def _understood(card: Card, id: str) -> Understanding:  # noqa: A002 - it is what the field is called
    lore = lore_from(card.part("character_book"))
    fields = {**_character(card, id), **_speech(card), **_about(card), "id": id, "lore": lore.entries}
    note = _extensions(card).get("depth_prompt")
    if isinstance(note, dict) and (told := note_from(note)) is not None:
        fields["lore"] = (*lore.entries, told)
    fields["lorebook"] = lore.book
    if OWN_EXTENSION in _extensions(card):
        written = (OWN_EXTENSION, "talkativeness")
        fields["extensions"] = {key: value for key, value in _extensions(card).items() if key not in written}
    try:
        persona = Persona.model_validate({**fields, **_restored(card), "id": id})
    except ValidationError:  # somebody else wrote what stands in our extension
        persona = _validated(fields)
    return Understanding(persona, (*_warnings(card), *lore.warnings))


def _validated(fields: Json) -> Persona:
    try:
        return Persona.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise CardError(f"the card cannot be a persona: `{place}`: {first['msg']}") from None


def _character(card: Card, id: str) -> Json:  # noqa: A002 - it is what the field is called
    description, personality = _long(card, "description"), _long(card, "personality")
    traits = _traits(personality)
    background = "\n\n".join(part for part in (description, "" if traits else personality) if part)
    name = clean_line(card.text("name"))[:MAX_NAME_LENGTH].strip() or id
    summary = first_sentence(description or personality or _long(card, "scenario"), max_length=MAX_SUMMARY_LENGTH)
    return {
        "name": name,
        "nickname": clean_line(card.text("nickname"))[:MAX_NAME_LENGTH].strip() or None,
        "summary": clean_line(summary) or name,
        "background": _checked("description` with `personality", background) or None,
        "traits": traits,
        "scenario": _long(card, "scenario") or None,
        "language": _language(card),
    }


def _speech(card: Card) -> Json:
    names = (clean_line(card.text("name")), clean_line(card.text("nickname")))
    greetings = (card.text("first_mes"), *card.texts("alternate_greetings"))
    return {
        "greetings": _texts("first_mes", greetings),
        "group_greetings": _texts("group_only_greetings", card.texts("group_only_greetings")),
        "examples": examples_from(_long(card, "mes_example"), names),
        "system_prompt": _long(card, "system_prompt") or None,
        "post_history_instructions": _long(card, "post_history_instructions") or None,
    }


def _about(card: Card) -> Json:
    tags = card.texts("tags")
    split = tags[0].split(",") if isinstance(card.value("tags"), str) and tags else tags
    fields: Json = {
        "tags": tuple(line for tag in split if (line := clean_line(tag)[:MAX_LINE_LENGTH])),
        "creator": clean_line(card.text("creator"))[:MAX_LINE_LENGTH] or None,
        "notes": _notes(card)[:MAX_TEXT_LENGTH] or None,
        "expressions": {
            name: Expression(avatar=face_name(name, asset.path())) for name, asset in face_assets(card).items()
        },
    }
    if version := clean_line(card.text("character_version"))[:MAX_LINE_LENGTH]:
        fields["version"] = version
    talkativeness = _extensions(card).get("talkativeness", card.raw.get("talkativeness"))
    with suppress(ValueError):
        share = float(as_text(talkativeness))
        fields["talkativeness"] = min(1.0, max(0.0, share)) if isfinite(share) else 0.5
    return fields


def face_name(emotion: str, path: str | None) -> str:
    """What a persona calls the picture of an emotion that lies in its card at `path`."""
    return path if path and len(path) <= MAX_LINE_LENGTH and path == clean_line(path) else f"emotion/{emotion}"


def _long(card: Card, name: str) -> str:
    return _checked(name, clean_text(card.text(name)))


def _texts(name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for written in texts if (text := _checked(name, clean_text(written))))


def _checked(name: str, text: str) -> str:
    if len(text) > MAX_TEXT_LENGTH:
        raise CardError(f"its field `{name}` has {len(text):,} characters, and at most {MAX_TEXT_LENGTH:,} are taken")
    return text


def _traits(personality: str) -> tuple[str, ...]:
    """The words of a list such as `warm, a little superstitious`; nothing where it is prose."""
    parts = [part.strip(" .\t") for part in re.split(r"[,;\n、，；]", personality)]
    words = [part for part in parts if part]
    is_list = len(words) > 1 and len(words) <= MAX_TRAITS and all(len(word) <= MAX_TRAIT_LENGTH for word in words)
    return tuple(words) if is_list and not re.search(r"[.!?:。！？]\s*\S", personality) else ()


def _notes(card: Card) -> str:
    """What the creator tells people, in the character's language where it is said in several, else in English."""
    told = card.part("creator_notes_multilingual")
    spoken = {re.split("[-_]", str(key))[0]: clean_text(as_text(value)) for key, value in told.items()}
    spoken = {"en": clean_text(card.text("creator_notes")), **spoken}
    wanted = (_language(card).split("-")[0], "en", *spoken)
    return next((text for language in wanted if (text := spoken.get(language, ""))), "")


def _language(card: Card) -> str:
    spoken = "\n".join([card.text("first_mes"), *card.texts("alternate_greetings")[:3], card.text("mes_example")])
    guessed = guess_language(f"{spoken}\n{card.text('description')}")
    if guessed is None:
        codes = [str(code).replace("_", "-") for code in card.part("creator_notes_multilingual")]
        guessed = codes[0] if len(codes) == 1 and _LANGUAGE.fullmatch(codes[0]) else "en"
    return guessed


def _extensions(card: Card) -> Json:
    return card.part("extensions")


def _warnings(card: Card) -> Iterator[str]:
    number = spec_number(card.raw)
    if card.spec == 3 and number is not None and number > 3:
        yield f"it is of version {number:g}, which is newer than what is known here; what is new in it has no effect"
    if len(clean_line(card.text("name"))) > MAX_NAME_LENGTH:
        yield f"its name is cut to {MAX_NAME_LENGTH} characters"
    if any(asset.is_elsewhere() for asset in card.listed_assets()):
        yield "pictures that lie on the web are not fetched"
    if any(asset.type in ("background", "user_icon") for asset in card.listed_assets()):
        yield "backgrounds and icons for people have no effect"
    world = as_text(_extensions(card).get("world"))
    if world and not card.part("character_book"):
        yield "its lorebook does not come with it; in SillyTavern, embed that and export the card again"
    if _extensions(card).get("regex_scripts"):
        yield "its scripts (`regex_scripts`) are not run"


# A persona as a card


def _built(persona: Persona, kept: Json) -> Card:
    """`persona` as a card of version 3; `kept` are fields of an older card of its, which stay where nothing is said."""
    data: Json = {**kept, **_data_from(persona)}
    own = _own_extensions(persona)
    older = kept.get("extensions")
    extensions: Json = {**(older if isinstance(older, dict) else {}), **own, "talkativeness": persona.talkativeness}
    data["extensions"] = extensions
    raw: Json = {"spec": SPECS[3], "spec_version": "3.0", "data": data}
    read = _understood(
        Card(3, {**raw, "data": {**data, "extensions": {**extensions, OWN_EXTENSION: {}}}}), persona.id
    ).persona
    meant, found = _dumped(persona), _dumped(read)
    meant["extensions"] = own
    unsaid = {name: value for name, value in meant.items() if value != found[name]}
    sources = sorted({source for name in unsaid for source in _READ_FROM.get(name, ())})
    extensions[OWN_EXTENSION] = {"fields": unsaid, "of": {name: _digest(data.get(name)) for name in sources}}
    return Card(3, raw)


def _own_extensions(persona: Persona) -> dict[str, JsonValue]:
    """What the author wrote there, without a card that is kept."""
    has_card = _kept_card(persona) is not None
    return {key: value for key, value in persona.extensions.items() if not (has_card and key == KEPT_CARD)}


def _restored(card: Card) -> Json:
    """What `extensions.commedia` says of fields that nobody changed in the card since."""
    own = _own_extension(card)
    fields, digests = own.get("fields"), own.get("of")
    if not isinstance(fields, dict) or not isinstance(digests, dict):
        return {}
    return {
        name: value
        for name, value in fields.items()
        if all(digests.get(source) == _digest(card.data.get(source)) for source in _READ_FROM.get(name, ()))
    }


def _own_extension(card: Card) -> Json:
    own = _extensions(card).get(OWN_EXTENSION)
    return own if isinstance(own, dict) else {}


def _data_from(persona: Persona) -> Json:
    assets = [{"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}] if persona.avatar else []
    faces = ((name, face.avatar) for name, face in persona.expressions.items())
    assets += [_asset("emotion", path, name) for name, path in faces if path]
    data: Json = {
        "name": persona.name,
        "description": _description(persona),
        "personality": ", ".join(persona.traits),
        "scenario": persona.scenario or "",
        "first_mes": persona.greetings[0] if persona.greetings else "",
        "mes_example": script_from(persona.examples),
        "creator_notes": persona.notes or "",
        "system_prompt": persona.system_prompt or "",
        "post_history_instructions": persona.post_history_instructions or "",
        "alternate_greetings": list(persona.greetings[1:]),
        "tags": list(persona.tags),
        "creator": persona.creator or "",
        "character_version": persona.version,
        "group_only_greetings": list(persona.group_greetings),
    }
    if persona.nickname:
        data["nickname"] = persona.nickname
    if persona.lore or persona.lorebook != type(persona.lorebook)():
        data["character_book"] = book_from(persona.lore, persona.lorebook)
    return {**data, "assets": assets} if assets else data


def _asset(kind: str, path: str, name: str) -> Json:
    ext = path.rpartition(".")[2].lower()
    return {"type": kind, "uri": f"embeded://{path}", "name": name, "ext": ext if len(ext) <= 4 else "unknown"}


def _description(persona: Persona) -> str:
    """Everything about the character that cards have no field for, so that other programs know it too."""
    identity = persona.identity.model_dump(exclude_none=True)
    lines = [persona.summary, *(f"{kind.capitalize()}: {value}" for kind, value in identity.items())]
    labelled = (
        ("Look", persona.look),
        ("Voice", persona.voice.style),
        ("Wants", persona.goals),
        ("Never", persona.boundaries),
    )
    lines += [f"{label}: {'; '.join(items)}" for label, items in labelled if items]
    return "\n".join([*lines, *filter(None, [persona.background])])


def _dumped(persona: Persona) -> dict[str, Any]:
    return persona.model_dump(mode="json", exclude={"id"})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(_with_whole_numbers(value), sort_keys=True).encode()).hexdigest()[:16]


def _with_whole_numbers(value: object) -> object:
    """`value` as programs write it that know one kind of number: 100.0 as 100."""
    if isinstance(value, dict):
        return {key: _with_whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
