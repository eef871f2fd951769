"""One table of commands. Adapters render it natively: slash commands, a BotFather menu, buttons on the page.

Owns names, descriptions and what a command does. Knows no platform: it gets a `CommandCall`, gives a `CommandReply`.
Of the chat it knows `CommandedChat` alone, of seeing `CommandedSeeing`. To add a command, write it in `_ChatCommands`
or in `bot.seeing`, and name it in `build_commands`.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from bot.adapters.base import ReplyChannel
from bot.errors import BotError, CommandError, StoreError
from bot.greeting import title_of
from bot.languages import LANGUAGE_NAMES, language_named
from bot.personas.prompt import fill_macros
from bot.types import Author, ChatKind, IncomingFile, PersonaCard, Rating, RepliedMessage, Room
from engine.errors import EngineBusy, EngineClosing, EngineError, NotAvailable, RequestError
from engine.persona import Persona

logger = logging.getLogger(__name__)

MAX_SUGGESTIONS = 25  # as many as Discord shows

HELP = """Write to me, with or without pictures, and I answer in character.
In a group, mention me, reply to me or call me by name. Reply to a message with a picture to ask about it.
Edit your message and I answer anew; the buttons under my answer give you another one, more of it, or none.

{commands}"""
TOO_BUSY = "Too many people are asking me right now. Please try again in a minute."
RESTARTING = "I am being restarted. Please try again in a minute."
NOT_SEEN = "My engine has a problem, so that did not work. Please try again in a moment."
NOT_DONE = "My memory has a problem, so that did not work. Please tell whoever runs me: my log says what to do."


@dataclass(frozen=True, slots=True)
class CommandCall:
    """Somebody used a command. `files` came with it; `reply_to` is the message that it was used on.

    `message_id` is the message whose button was pressed. `is_moderator`: the author may delete other people's messages
    here. `channel` is where to write; it is missing where there is none, as in the terminal.
    """

    room: Room
    kind: ChatKind
    author: Author
    arguments: Mapping[str, str] = field(default_factory=dict)
    files: tuple[IncomingFile, ...] = ()
    reply_to: RepliedMessage | None = None
    message_id: str | None = None
    is_moderator: bool = False
    channel: ReplyChannel | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """Something to pick: shown as a button or an autocompletion. `value` is at most 64 bytes."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class ReplyPicture:
    """A picture that a command answers with: a JPEG or PNG file, and what it shows in words."""

    name: str
    data: bytes = field(repr=False)
    alt: str = ""


@dataclass(frozen=True, slots=True)
class CommandReply:
    """What a command answers. `choices` fill the argument `choice_argument` of the command path `choice_path`.

    `is_silent`: what the command did can be seen already, so nothing needs to be said where a button was pressed; a
    typed command is answered with `text` to its user alone.
    """

    text: str
    is_private: bool = False
    choices: tuple[Choice, ...] = ()
    choice_path: tuple[str, ...] = ()
    choice_argument: str = ""
    pictures: tuple[ReplyPicture, ...] = ()
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """A command's argument. `suggest` completes what was typed so far.

    `is_prose`: it takes a longer text, for which a platform may open a field; `prefill` is what that begins with.
    """

    name: str
    description: str
    is_required: bool = True
    suggest: Callable[[CommandCall, str], Awaitable[tuple[Choice, ...]]] | None = None
    is_prose: bool = False
    prefill: Callable[[CommandCall], Awaitable[str]] | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `path` is `("reset",)` or `("persona", "use")`: at most a group and a name.

    `takes_picture`: a picture may come with it. `is_about_message`: it may be used on a message. `only_looks`: it
    leaves every conversation as it is. `for_moderators`: in a group, only they may use it. `takes_file`: a file that is
    no picture may come with it.
    """

    path: tuple[str, ...]
    description: str
    run: Callable[[CommandCall], Awaitable[CommandReply]]
    arguments: tuple[Argument, ...] = ()
    takes_picture: bool = False
    is_about_message: bool = False
    only_looks: bool = False
    for_moderators: bool = False
    takes_file: bool = False


class CommandTable:
    """All commands, found by path. Raises `ValueError` for two commands of one path."""

    def __init__(self, commands: tuple[Command, ...]) -> None:
        self._by_path = {command.path: command for command in commands}
        if len(self._by_path) != len(commands):
            raise ValueError("two commands have the same path")

    def __iter__(self) -> Iterator[Command]:
        return iter(self._by_path.values())

    def find(self, *path: str) -> Command | None:
        """The command at `path`, if there is one."""
        return self._by_path.get(path)

    def match(self, text: str) -> tuple[Command, dict[str, str]] | None:
        """The command that was typed as `/persona use Mina`, with its arguments; the last one takes the rest.

        `/persona` alone lists or shows what there is.
        """
        if not text.startswith("/"):
            return None
        words = text[1:].split()
        for length in (2, 1):
            command = self.find(*(word.lower() for word in words[:length])) if len(words) >= length else None
            if command:
                names = [argument.name for argument in command.arguments]
                values = " ".join(words[length:]).split(maxsplit=len(names) - 1) if names else []
                return command, dict(zip(names, values, strict=False))
        shown = (self.find(words[0].lower(), verb) for verb in ("list", "show")) if len(words) == 1 else ()
        return next(((command, {}) for command in shown if command is not None), None)


class CommandedChat(Protocol):
    """What the commands need of `bot.chat.ChatService`. Raises `BotError`."""

    def personas(self) -> tuple[PersonaCard, ...]:
        """All personas, by name."""

    def find_persona(self, text: str) -> Persona:
        """The persona that somebody means. Raises `PersonaError`."""

    async def chosen(self, room: Room) -> str:
        """The id of the persona that answers in `room`."""

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let another persona answer in `room`."""

    async def greet_once(self, room: Room, *, user_name: str | None = None, is_group: bool = False) -> str | None:
        """The greeting, where the conversation with the chosen persona is new; empty where it has none."""

    async def greetings(self, room: Room, *, user_name: str | None = None, is_group: bool = False) -> tuple[str, ...]:
        """What the chosen persona may begin with."""

    async def greet_with(self, room: Room, text: str) -> None:
        """Begin with that greeting. Raises `CommandError` where the conversation has gone on."""

    async def start_over(self, room: Room) -> None:
        """Forget the conversation with the chosen persona."""


class CommandedSeeing(Protocol):
    """The commands about pictures and replies: `bot.seeing.SeeingService`. Raises `BotError` and `EngineError`."""

    def describe(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """What a picture shows."""

    def find(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """An earlier picture by its content."""

    def translate(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """A message in another language."""

    def why(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """What a reply was made of."""


class CommandedSteering(Protocol):
    """The commands on replies: `bot.steering.Steering`. Raises `BotError` and `EngineError`."""

    def swipe(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """The version of a reply before, or the one after."""

    def regenerate(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """Another version."""

    def go_on(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """More of a reply."""

    def stop(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """No more of a reply that is being given."""

    def undo(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """The last exchange is forgotten."""

    def delete(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """A reply is gone."""

    def edit(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """A reply in other words."""

    def current_text(self, call: CommandCall, /) -> Awaitable[str]:
        """The words of a reply that is to be edited."""

    def rate(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """What somebody thinks of a reply."""

    def ratings(self, call: CommandCall, /) -> Awaitable[CommandReply]:
        """Whether that may be kept."""


def build_commands(
    chat: CommandedChat,
    seeing: CommandedSeeing | None = None,
    *,
    steering: CommandedSteering | None = None,
    more: tuple[Command, ...] = (),
    has_ratings: bool = False,
) -> CommandTable:
    """The table of all commands, in the order of menus. Each raises `BotError` with a text for people."""
    commands = _ChatCommands(chat)
    persona = Argument("name", "Who it is about", suggest=commands.suggest)
    maybe_persona = Argument("name", "Who it is about", is_required=False, suggest=commands.suggest)
    number = Argument("number", "Which greeting", is_required=False, suggest=commands.suggest_greetings)
    listed = (
        Command(("start",), "Meet the persona that answers here", commands.start),
        Command(("help",), "How to talk to me", commands.help, only_looks=True),
        Command(("greeting",), "Choose how our conversation begins", commands.greeting, (number,), for_moderators=True),
        Command(("persona", "list"), "Who you can talk to", commands.list, only_looks=True),
        Command(("persona", "use"), "Talk to another persona", commands.use, (persona,), for_moderators=True),
        Command(("persona", "show"), "Get to know a persona", commands.show, (maybe_persona,), only_looks=True),
        *(_steering_commands(steering, has_ratings=has_ratings) if steering is not None else ()),
        *(_seeing_commands(seeing) if seeing is not None else ()),
        *more,
        Command(("reset",), "Forget our conversation and start over", commands.reset, for_moderators=True),
    )
    commands.table = CommandTable(tuple(replace(command, run=_for_people(command)) for command in listed))
    return commands.table


def _seeing_commands(seeing: CommandedSeeing) -> tuple[Command, ...]:
    question = Argument("question", "What you want to know about the picture", is_required=False)
    words = Argument("words", "What the picture shows")
    language = Argument("language", "Into which language", is_required=False, suggest=_suggest_languages)
    text = Argument("text", "What to translate, if not the last message", is_required=False)
    return (
        Command(
            ("describe",),
            "What a picture shows, or an answer about it",
            seeing.describe,
            (question,),
            takes_picture=True,
            is_about_message=True,
            only_looks=True,
        ),
        Command(("find",), "Find an earlier picture by what it shows", seeing.find, (words,), only_looks=True),
        Command(
            ("translate",),
            "Say a message in another language",
            seeing.translate,
            (language, text),
            is_about_message=True,
            only_looks=True,
        ),
        Command(("why",), "Why I said what I said", seeing.why, is_about_message=True, only_looks=True),
    )


def _steering_commands(steering: CommandedSteering, *, has_ratings: bool) -> tuple[Command, ...]:
    direction = Argument("direction", "back or next", is_required=False, suggest=_suggesting("next", "back"))
    text = Argument("text", "What I should have said", is_prose=True, prefill=steering.current_text)
    rating = Argument("rating", "good, bad or none", suggest=_suggesting(*Rating, "none"))
    answer = Argument("answer", "on or off", is_required=False, suggest=_suggesting("on", "off"))
    listed = (
        Command(("swipe",), "Another version of my last answer", steering.swipe, (direction,)),
        Command(("regenerate",), "Answer again", steering.regenerate),
        Command(("continue",), "Go on where my last answer ended", steering.go_on),
        Command(("stop",), "Stop what I am saying", steering.stop),
        Command(("undo",), "Forget your last message and my answer", steering.undo),
        Command(("delete",), "Delete an answer of mine", steering.delete),
        Command(("edit",), "Put other words into my answer", steering.edit, (text,)),
    )
    if not has_ratings:
        return listed
    return (
        *listed,
        Command(("rate",), "Say whether an answer of mine is good", steering.rate, (rating,)),
        Command(("ratings",), "Whether I may keep your ratings", steering.ratings, (answer,)),
    )


def _suggesting(*values: str) -> Callable[[CommandCall, str], Awaitable[tuple[Choice, ...]]]:
    async def suggest(_call: CommandCall, typed: str) -> tuple[Choice, ...]:
        wanted = typed.strip().casefold()
        return tuple(Choice(value, value) for value in values if value.startswith(wanted))

    return suggest


async def _suggest_languages(_call: CommandCall, typed: str) -> tuple[Choice, ...]:
    wanted = typed.strip().casefold()
    names = [name for name in LANGUAGE_NAMES if name.casefold().startswith(wanted)]
    meant = language_named(typed)
    return tuple(Choice(name, name) for name in dict.fromkeys([*filter(None, [meant]), *names]))[:MAX_SUGGESTIONS]


def _for_people(command: Command) -> Callable[[CommandCall], Awaitable[CommandReply]]:
    """What `command` does, for those who may use it, and with what is wrong with store or engine told to the log: it
    names folders of the machine."""
    run = command.run

    async def run_for_people(call: CommandCall) -> CommandReply:
        if command.for_moderators and call.kind is ChatKind.GROUP and not call.is_moderator:
            raise CommandError(f"Only moderators may use /{' '.join(command.path)} here.")
        try:
            return await run(call)
        except StoreError as error:
            logger.error("a command in %s failed: %s", call.room, error)
            raise BotError(NOT_DONE) from error
        except EngineBusy as error:
            raise BotError(TOO_BUSY) from error
        except EngineClosing as error:
            raise BotError(RESTARTING) from error
        except (NotAvailable, RequestError) as error:
            raise BotError(str(error)) from error
        except EngineError as error:
            logger.error("a command in %s failed: %s", call.room, error)
            raise BotError(NOT_SEEN) from error

    return run_for_people


class _ChatCommands:
    table: CommandTable

    def __init__(self, chat: CommandedChat) -> None:
        self._chat = chat

    async def start(self, call: CommandCall) -> CommandReply:
        name = self._chat.find_persona(await self._chat.chosen(call.room)).name
        return await self._greeted(call, otherwise=f"{name} is here, and remembers you. Just go on, or see /help.")

    async def _greeted(self, call: CommandCall, *, otherwise: str, before: str = "") -> CommandReply:
        """The greeting of a new conversation, with the others to choose; `otherwise` where it is not new."""
        greeting = await self._chat.greet_once(call.room, user_name=_user_name(call), is_group=_is_group(call))
        if greeting is None:
            return CommandReply(otherwise)
        if not greeting:
            name = self._chat.find_persona(await self._chat.chosen(call.room)).name
            return CommandReply(f"{before}{name} is listening: say something.")
        return await self._with_greetings(call, CommandReply(f"{before}{greeting}"), shown=greeting)

    async def _with_greetings(self, call: CommandCall, reply: CommandReply, *, shown: str = "") -> CommandReply:
        """`reply` with the greetings to choose from, but for the one that is `shown`."""
        greetings = await self._chat.greetings(call.room, user_name=_user_name(call), is_group=_is_group(call))
        choices = tuple(
            Choice(title_of(text), str(number)) for number, text in enumerate(greetings, start=1) if text != shown
        )
        return replace(reply, choices=choices[:MAX_SUGGESTIONS], choice_path=("greeting",), choice_argument="number")

    async def greeting(self, call: CommandCall) -> CommandReply:
        greetings = await self._chat.greetings(call.room, user_name=_user_name(call), is_group=_is_group(call))
        wanted = call.arguments.get("number", "").strip()
        if not greetings:
            raise CommandError("There is nothing to choose: you begin.")
        if not wanted:
            listed = "\n".join(f"{number}. {title_of(text)}" for number, text in enumerate(greetings, start=1))
            reply = CommandReply(f"How shall I begin? Choose a number:\n{listed}", is_private=True)
            return await self._with_greetings(call, reply)
        if not wanted.isascii() or not wanted.isdigit() or not 1 <= int(wanted) <= len(greetings):
            raise CommandError(f"Choose a number from 1 to {len(greetings)}, such as: /greeting 1")
        text = greetings[int(wanted) - 1]
        await self._chat.greet_with(call.room, text)
        return CommandReply(text)

    async def help(self, _call: CommandCall) -> CommandReply:
        lines = [f"/{' '.join(command.path)} – {command.description}" for command in self.table]
        return CommandReply(HELP.format(commands="\n".join(lines)), is_private=True)

    async def list(self, call: CommandCall) -> CommandReply:
        chosen = await self._chat.chosen(call.room)
        cards = self._chat.personas()
        lines = [f"{'▶' if card.id == chosen else '•'} {card.name}: {card.summary}" for card in cards]
        return CommandReply(
            "\n".join(lines),
            is_private=True,
            choices=tuple(_choice(card) for card in cards),
            choice_path=("persona", "use"),
            choice_argument="name",
        )

    async def use(self, call: CommandCall) -> CommandReply:
        name = call.arguments.get("name", "")
        if not name.strip():
            return await self.list(call)
        persona = self._chat.find_persona(name)
        await self._chat.choose(call.room, persona.id)
        return await self._greeted(call, otherwise=f"{persona.name} is back, and your conversation goes on.")

    async def show(self, call: CommandCall) -> CommandReply:
        name = call.arguments.get("name", "").strip()
        persona = self._chat.find_persona(name or await self._chat.chosen(call.room))
        return CommandReply(describe(persona), is_private=True)

    async def reset(self, call: CommandCall) -> CommandReply:
        persona = self._chat.find_persona(await self._chat.chosen(call.room))
        await self._chat.start_over(call.room)
        forgotten = f"{persona.name} has forgotten our conversation."
        return await self._greeted(call, otherwise=forgotten, before=f"{forgotten}\n\n")

    async def suggest(self, _call: CommandCall, typed: str) -> tuple[Choice, ...]:
        wanted = typed.strip().casefold()
        cards = self._chat.personas()
        starting = [card for card in cards if card.name.casefold().startswith(wanted) or card.id.startswith(wanted)]
        inside = [card for card in cards if wanted in card.name.casefold() and card not in starting]
        return tuple(_choice(card) for card in [*starting, *inside][:MAX_SUGGESTIONS])

    async def suggest_greetings(self, call: CommandCall, typed: str) -> tuple[Choice, ...]:
        greetings = await self._chat.greetings(call.room, user_name=_user_name(call), is_group=_is_group(call))
        numbered = [(str(number), title_of(text)) for number, text in enumerate(greetings, start=1)]
        wanted = typed.strip().casefold()
        found = [Choice(title, number) for number, title in numbered if wanted in title.casefold() or wanted == number]
        return tuple(found[:MAX_SUGGESTIONS])


def describe(persona: Persona) -> str:
    """What people may know about `persona` before they talk to it."""
    identity = persona.identity.model_dump(exclude_none=True)
    facts = [f"{kind.capitalize()}: {value}" for kind, value in identity.items()]
    if persona.look:
        facts.append(f"Look: {'; '.join(persona.look)}")
    if persona.traits:
        facts.append(f"Traits: {', '.join(persona.traits)}")
    origin = ", ".join(part for part in (persona.creator and f"by {persona.creator}", persona.licence) if part)
    lines = [f"{persona.name}: {persona.summary}", "", *facts, f"Language: {persona.language}", origin]
    return fill_macros("\n".join(lines).strip(), persona)


def _choice(card: PersonaCard) -> Choice:
    return Choice(card.name, card.id)


def _is_group(call: CommandCall) -> bool:
    return call.kind is ChatKind.GROUP


def _user_name(call: CommandCall) -> str | None:
    # A greeting in a group is for everybody.
    return None if _is_group(call) else call.author.display_name
