"""The commands with which people arrange a room: who is in it, when they answer, and what is shown.

Owns what people may write there and what they are told. Knows no platform and no SQL: it changes one room's
`RoomSettings`, and never sees another's. What is set in a thread is kept for the thread alone.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from bot.access import effective_triggers
from bot.commands import MAX_SUGGESTIONS, Argument, Choice, Command, CommandCall, CommandReply
from bot.errors import CommandError, PersonaError
from bot.rooms import EVERYONE, RoomSettings, TriggerChanges
from bot.types import ChatKind, PersonaCard, Room
from bot.words import fold
from engine.persona import Persona, Triggers

MAX_CAST = 10
MAX_LISTED = 30
MAX_EXCHANGE = 10

RESET = "reset"
_NOTHING = frozenset({"none", "nothing", "off", "-", "–"})
_YES = frozenset({"on", "yes", "true", "1"})
_NO = frozenset({"off", "no", "false", "0"})
_STATES: Mapping[bool | None, str] = {True: "on", False: "off", None: "as configured"}
_SEPARATORS = re.compile(r"[,;，；、\n]")


class ArrangedChat(Protocol):
    """What these commands need of `bot.chat.ChatService`. Raises `BotError`."""

    def personas(self) -> tuple[PersonaCard, ...]:
        """All personas, by name."""

    def find_persona(self, text: str) -> Persona:
        """The persona that somebody means. Raises `PersonaError` with those that there are."""

    async def chosen(self, room: Room) -> str:
        """The id of the persona that answers in `room`."""


class RoomSettingsStore(Protocol):
    """What rooms have set: `bot.store.repositories.Rooms`. Raises `StoreError`."""

    async def settings(self, room: Room) -> RoomSettings:
        """What holds in `room`: of a thread, laid over what is set for its channel."""

    async def own_settings(self, room: Room) -> RoomSettings:
        """What was set in `room` itself."""

    async def change(self, room: Room, settings: RoomSettings) -> None:
        """Let `settings` be what was set in `room` itself."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """One trigger as people set it: `read` makes a value of what they wrote, and raises `ValueError`."""

    field: str
    read: Callable[[str], object]
    example: str
    is_long: bool = False
    empty: str = "none"
    suggestions: tuple[str, ...] = ("on", "off", RESET)


def _switch(text: str) -> bool:
    if text.casefold() in _YES | _NO:
        return text.casefold() in _YES
    raise ValueError("must be on or off")


def _share(text: str) -> float:
    if text.casefold() in _NOTHING:
        return 0.0
    number = text.removesuffix("%").strip()
    try:
        share = float(number.replace(",", ".")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ValueError("must be a number from 0 to 1") from None
    if not 0 <= share <= 1:
        raise ValueError("must be from 0 to 1")
    return share


def _list(text: str) -> tuple[str, ...]:
    if text.casefold() in _NOTHING:
        return ()
    items = tuple(dict.fromkeys(item.strip() for item in _SEPARATORS.split(text) if item.strip()))
    if len(items) > MAX_LISTED:
        raise ValueError(f"may have at most {MAX_LISTED} items")
    return items


def _channels(text: str) -> tuple[str, ...]:
    # As Discord writes a channel that was picked: <#123>.
    named = (re.sub(r"^<#(\d+)>$", r"\1", name).removeprefix("#") for name in _list(text))
    return () if text.casefold() in {"all", "everywhere"} else tuple(name for name in named if name)


def _pattern(text: str) -> tuple[str, ...]:
    return () if text.casefold() in _NOTHING else (text,)


_SETTINGS = {
    "mention": _Setting("mention", _switch, "off"),
    "reply": _Setting("reply", _switch, "off"),
    "name": _Setting("name", _switch, "off"),
    "words": _Setting("words", _list, "lighthouse, storm", is_long=True, suggestions=("none", RESET)),
    "patterns": _Setting("patterns", _pattern, r"ships?\b|boats?\b", is_long=True, suggestions=("none", RESET)),
    "chance": _Setting("chance", _share, "0.05", suggestions=("0", "0.05", "0.2", RESET)),
    "channels": _Setting(
        "channels",
        _channels,
        "harbour, 1234567890",
        is_long=True,
        empty="everywhere",
        suggestions=("everywhere", RESET),
    ),
    "quiet-hours": _Setting(
        "quiet_hours", _list, "23:00-07:30 Europe/Berlin", is_long=True, suggestions=("none", "23:00-07:00", RESET)
    ),
}


def room_commands(chat: ArrangedChat, rooms: RoomSettingsStore) -> tuple[Command, ...]:
    """The commands for the table."""
    commands = _RoomCommands(chat, rooms)
    absent = Argument("name", "Who joins", suggest=commands.suggest_absent)
    present = Argument("name", "Who leaves", suggest=commands.suggest_cast)
    whom = Argument("name", "Of which persona", is_required=False, suggest=commands.suggest_present)
    setting = Argument("setting", "What to change", suggest=_suggest_settings)
    value = Argument("value", "What it becomes; reset takes the author's", suggest=_suggest_values)
    buttons = Argument("shown", "on, off or reset", is_required=False, suggest=_suggesting("on", "off", RESET))
    numbers = tuple(str(number) for number in range(5))
    exchange = Argument("replies", "How many, or reset", is_required=False, suggest=_suggesting(*numbers, RESET))
    return (
        Command(("cast", "list"), "Who is in this room", commands.list_cast, only_looks=True),
        Command(("cast", "add"), "Bring a persona into this room", commands.add, (absent,), for_moderators=True),
        Command(("cast", "remove"), "Let a persona leave", commands.remove, (present,), for_moderators=True),
        Command(("triggers", "show"), "When I answer here", commands.show_triggers, (whom,), only_looks=True),
        Command(
            ("triggers", "set"),
            "Change when I answer here",
            commands.set_trigger,
            (setting, value, whom),
            for_moderators=True,
        ),
        Command(
            ("buttons",), "Show buttons under my answers, or not", commands.buttons, (buttons,), for_moderators=True
        ),
        Command(
            ("exchange",),
            "How many replies personas give to each other",
            commands.exchange,
            (exchange,),
            for_moderators=True,
        ),
    )


class _RoomCommands:
    def __init__(self, chat: ArrangedChat, rooms: RoomSettingsStore) -> None:
        self._chat = chat
        self._rooms = rooms
        # Settings are read, changed and kept: two changes at once would lose one.
        self._changing = asyncio.Lock()

    # --- who is here

    async def list_cast(self, call: CommandCall) -> CommandReply:
        chosen, cast = await self._chat.chosen(call.room), (await self._rooms.settings(call.room)).cast
        lines = [f"▶ {self._name(chosen)}, who answers where nobody is named"]
        lines += [f"• {self._name(persona_id)}" for persona_id in cast if persona_id != chosen]
        if len(lines) == 1:
            lines.append("Nobody else is in this room. /cast add brings somebody in.")
        return CommandReply("\n".join(lines), is_private=True)

    async def add(self, call: CommandCall) -> CommandReply:
        name = call.arguments.get("name", "").strip()
        if not name:
            return await self._offered(call, "add", "Who joins?", self._absent)
        persona = self._chat.find_persona(name)
        chosen = await self._chat.chosen(call.room)
        async with self._changing:
            cast = (await self._rooms.settings(call.room)).cast
            if persona.id in (chosen, *cast):
                return CommandReply(f"{persona.name} is in this room already.", is_private=True)
            if len(cast) >= MAX_CAST:
                raise CommandError(f"{MAX_CAST + 1} are in this room already. /cast remove makes place.")
            await self._change(call.room, cast=(*cast, persona.id))
        return CommandReply(
            f"{persona.name} has joined. Whoever is named answers, and {self._name(chosen)} where nobody is."
        )

    async def remove(self, call: CommandCall) -> CommandReply:
        name = call.arguments.get("name", "").strip()
        if not name:
            return await self._offered(call, "remove", "Who leaves?", self._others)
        chosen = await self._chat.chosen(call.room)
        async with self._changing:
            cast = (await self._rooms.settings(call.room)).cast
            leaving = self._meant(name, cast)
            if leaving is None and self._meant(name, (chosen,)):
                raise CommandError(
                    f"{self._name(chosen)} was chosen to answer here: choose another with /persona use first."
                )
            if leaving is None:
                here = ", ".join(map(self._name, cast))
                raise CommandError(
                    f"Nobody of that name can leave. Here are: {here}." if here else "Nobody else is here."
                )
            await self._change(call.room, cast=tuple(one for one in cast if one != leaving))
        return CommandReply(f"{self._name(leaving)} has left.")

    def _meant(self, name: str, persona_ids: Iterable[str]) -> str | None:
        """Whom of `persona_ids` somebody means; also one whose file is gone."""
        wanted = fold(name)
        for persona_id in persona_ids:
            if wanted in (fold(persona_id), fold(self._name(persona_id))):
                return persona_id
        try:
            found = self._chat.find_persona(name).id
        except PersonaError:
            return None
        return found if found in persona_ids else None

    def _name(self, persona_id: str) -> str:
        names = (card.name for card in self._chat.personas() if card.id == persona_id)
        return next(names, f"“{persona_id}”, whose file is gone")

    # --- when they answer

    async def show_triggers(self, call: CommandCall) -> CommandReply:
        settings = await self._rooms.settings(call.room)
        name = call.arguments.get("name", "").strip()
        persona_ids = (self._chat.find_persona(name).id,) if name else await self._present(call.room)
        parts = [
            f"{card.name}\n{_described(effective_triggers(persona, settings), persona.triggers)}"
            for card in self._chat.personas()
            if card.id in persona_ids
            for persona in (self._chat.find_persona(card.id),)
        ]
        if call.kind is ChatKind.DIRECT:
            parts.append("In a direct chat, everything is answered.")
        elif any("*" in part for part in parts):
            parts.append("* changed for this room; /triggers set … reset takes the author's again.")
        return CommandReply("\n\n".join(parts), is_private=True)

    async def set_trigger(self, call: CommandCall) -> CommandReply:
        word = call.arguments.get("setting", "").strip().casefold().replace("_", "-").replace(" ", "-")
        setting = _SETTINGS.get(word)
        if setting is None:
            raise CommandError(
                f"I can set: {', '.join(_SETTINGS)}. For example: /triggers set words {_SETTINGS['words'].example}"
            )
        text, persona = self._value_and_persona(call, setting)
        if not text:
            raise CommandError(f"What shall it be? For example: /triggers set {word} {setting.example}")
        value = None if text.casefold() == RESET else _checked(word, setting, text)
        whom = persona.id if persona is not None else EVERYONE
        async with self._changing:
            triggers = dict((await self._rooms.settings(call.room)).triggers)
            # Whatever was set for single personas goes too, when everybody's is reset.
            changed = tuple(triggers) if value is None and persona is None else (whom,)
            for name in changed:
                triggers[name] = triggers.get(name, TriggerChanges()).model_copy(update={setting.field: value})
            await self._change(call.room, triggers=_without_idle(triggers))
        name = persona.name if persona is not None else "Everybody here"
        shown = "as the author wrote it" if value is None else _shown(value, setting)
        own = [self._name(other) for other in triggers if value is not None and _is_own(triggers, other, whom, setting)]
        exceptions = f" {', '.join(own)} keeps what was set by name." if own else ""
        return CommandReply(f"{name}: {word} is now {shown}.{exceptions}")

    def _value_and_persona(self, call: CommandCall, setting: _Setting) -> tuple[str, Persona | None]:
        """What was written as value, and of whom it is.

        Where a command is typed, nothing shows where a long value ends and a name begins: `words storm, sea Mira`.
        """
        value, name = (call.arguments.get(argument, "").strip() for argument in ("value", "name"))
        if not name:
            return value, None
        is_one_word = not setting.is_long or value.casefold() in _NOTHING | {RESET}
        if is_one_word:
            return value, self._chat.find_persona(name)
        words = name.split()
        for start in range(len(words)):
            before = " ".join([value, *words[:start]])
            found = self._exactly(" ".join(words[start:]))
            if found is not None and not _SEPARATORS.match(before[-1:]):
                return before, found
        return f"{value} {name}", None

    def _exactly(self, name: str) -> Persona | None:
        wanted = fold(name)
        found = (card.id for card in self._chat.personas() if wanted in (fold(card.id), fold(card.name)))
        persona_id = next(found, None)
        return self._chat.find_persona(persona_id) if persona_id is not None else None

    # --- what is shown, and how long they talk

    async def buttons(self, call: CommandCall) -> CommandReply:
        text = call.arguments.get("shown", "").strip().casefold()
        if not text:
            has_controls = (await self._rooms.settings(call.room)).has_controls
            state = _STATES[has_controls]
            return CommandReply(
                f"Buttons under my answers here are {state}. /buttons on, /buttons off or /buttons reset.",
                is_private=True,
            )
        if text not in _YES | _NO | {RESET}:
            raise CommandError("Write /buttons on, /buttons off or /buttons reset.")
        value = None if text == RESET else text in _YES
        async with self._changing:
            await self._change(call.room, has_controls=value)
        return CommandReply(f"Buttons under my answers here are {_STATES[value]}.")

    async def exchange(self, call: CommandCall) -> CommandReply:
        text = call.arguments.get("replies", "").strip().casefold()
        if not text:
            number = (await self._rooms.settings(call.room)).max_exchange
            state = "as many replies as configured" if number is None else _replies(number)
            return CommandReply(
                f"Personas here give each other {state} in a row. /exchange 2 changes it.", is_private=True
            )
        number = None if text == RESET else _number(text)
        async with self._changing:
            await self._change(call.room, max_exchange=number)
        if number == 0:
            return CommandReply("Personas here answer people alone, not each other.")
        state = "as many replies as configured" if number is None else _replies(number)
        return CommandReply(f"Personas here give each other {state} in a row, then wait for people.")

    # --- the room

    async def _change(self, room: Room, **values: object) -> None:
        """Set `values` in `room` itself; `None` unsets one, so that a thread has its channel's again."""
        own = await self._rooms.own_settings(room)
        kept = {name: getattr(own, name) for name in own.model_fields_set} | values
        set_here = {name: value for name, value in kept.items() if value is not None}
        await self._rooms.change(room, RoomSettings.model_validate(set_here))

    async def _present(self, room: Room) -> tuple[str, ...]:
        return (await self._chat.chosen(room), *(await self._rooms.settings(room)).cast)

    async def _absent(self, room: Room) -> list[PersonaCard]:
        present = await self._present(room)
        return [card for card in self._chat.personas() if card.id not in present]

    async def _others(self, room: Room) -> list[PersonaCard]:
        cast = (await self._rooms.settings(room)).cast
        return [card for card in self._chat.personas() if card.id in cast]

    async def _offered(
        self, call: CommandCall, command: str, question: str, find: Callable[[Room], Awaitable[list[PersonaCard]]]
    ) -> CommandReply:
        choices = tuple(Choice(card.name, card.id) for card in await find(call.room))
        text = question if choices else "There is nobody else."
        return CommandReply(
            text, is_private=True, choices=choices, choice_path=("cast", command), choice_argument="name"
        )

    async def suggest_absent(self, call: CommandCall, typed: str) -> tuple[Choice, ...]:
        return _matching(await self._absent(call.room), typed)

    async def suggest_cast(self, call: CommandCall, typed: str) -> tuple[Choice, ...]:
        return _matching(await self._others(call.room), typed)

    async def suggest_present(self, call: CommandCall, typed: str) -> tuple[Choice, ...]:
        present = await self._present(call.room)
        return _matching([card for card in self._chat.personas() if card.id in present], typed)


def _checked(word: str, setting: _Setting, text: str) -> object:
    try:
        value = setting.read(text)
        Triggers.model_validate({setting.field: value})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        cause = str(problem.get("ctx", {}).get("error", problem["msg"]))
        raise CommandError(_advice(word, setting, cause)) from None
    except ValueError as error:
        raise CommandError(_advice(word, setting, str(error))) from None
    return value


def _advice(word: str, setting: _Setting, cause: str) -> str:
    cause = f"{cause[:1].lower()}{cause[1:]}"
    return f"{word}: what you wrote {cause}. For example: /triggers set {word} {setting.example}"


def _without_idle(triggers: Mapping[str, TriggerChanges]) -> dict[str, TriggerChanges]:
    return {name: changes for name, changes in triggers.items() if changes.model_dump(exclude_none=True)}


def _is_own(triggers: Mapping[str, TriggerChanges], name: str, whom: str, setting: _Setting) -> bool:
    """Whether that persona goes by what was set for it, when everybody's is changed."""
    return whom == EVERYONE and name != EVERYONE and getattr(triggers[name], setting.field) is not None


def _described(triggers: Triggers, written: Triggers) -> str:
    return "\n".join(
        f"• {word}: {_shown(value, setting)}{'' if value == getattr(written, setting.field) else ' *'}"
        for word, setting in _SETTINGS.items()
        for value in (getattr(triggers, setting.field),)
    )


def _shown(value: object, setting: _Setting) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or setting.empty
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(text: str) -> int:
    if text not in map(str, range(MAX_EXCHANGE + 1)):
        raise CommandError(f"Write a number from 0 to {MAX_EXCHANGE}, such as /exchange 2, or /exchange reset.")
    return int(text)


def _replies(number: int) -> str:
    return "1 reply" if number == 1 else f"{number} replies"


def _matching(cards: Iterable[PersonaCard], typed: str) -> tuple[Choice, ...]:
    wanted = fold(typed).strip()
    found = [card for card in cards if wanted in fold(card.name) or card.id.startswith(wanted)]
    return tuple(Choice(card.name, card.id) for card in found[:MAX_SUGGESTIONS])


def _suggesting(*values: str) -> Callable[[CommandCall, str], Awaitable[tuple[Choice, ...]]]:
    async def suggest(_call: CommandCall, typed: str) -> tuple[Choice, ...]:
        wanted = typed.strip().casefold()
        return tuple(Choice(value, value) for value in values if value.startswith(wanted))

    return suggest


_suggest_settings = _suggesting(*_SETTINGS)


async def _suggest_values(call: CommandCall, typed: str) -> tuple[Choice, ...]:
    setting = _SETTINGS.get(call.arguments.get("setting", "").strip().casefold())
    return await _suggesting(*(setting.suggestions if setting is not None else ()))(call, typed)
