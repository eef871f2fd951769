"""The command table as Telegram shows it: BotFather's menu, `/persona use Luna`, and buttons.

Owns parsing, buttons, and how answers and failures are shown. Knows nothing of what a command does.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from telegram import BotCommand, CallbackQuery, Chat, InlineKeyboardButton, InlineKeyboardMarkup, Message, MessageEntity
from telegram.error import BadRequest, TelegramError

from bot.adapters.telegram.channel import MAX_CAPTION_LENGTH, TelegramChannel
from bot.adapters.telegram.client import MALFORMED_ANSWER, TelegramClient, split_text, utf16_length
from bot.adapters.telegram.messages import (
    PLATFORM,
    author_from,
    author_of,
    files_of,
    kind_of,
    replied_message,
    room_of,
)
from bot.commands import Argument, Choice, Command, CommandCall, CommandReply, CommandTable
from bot.errors import BotError, DeliveryError, RateLimited
from bot.types import Room

logger = logging.getLogger(__name__)

APOLOGY = "Sorry, that went wrong. The bot's admin finds the reason in the log; please try again later."
OUTDATED_BUTTON = "This button is out of date. Use the command again to get new ones."

_MENU_NAME = re.compile(r"[a-z0-9_]{1,32}")
_MAX_MENU_COMMANDS = 100
_MAX_DESCRIPTION = 256
_MAX_BUTTONS = 96  # the server takes 100
_MAX_CALLBACK_BYTES = 64
_SHORT_LABEL = 16
_NUM_TRIES = 4
_MAX_WAIT_S = 60.0
# Quick answers need no sign that they are coming.
_TYPING_AFTER_S = 0.5


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command as it was typed: `/name@addressee rest`."""

    name: str
    addressee: str | None
    rest: str


def parse_invocation(message: Message) -> Invocation | None:
    """The command that `message` or its picture's caption begins with, if it does."""
    text, entities = (
        (message.text, message.entities) if message.text else (message.caption or "", message.caption_entities)
    )
    if not any(entity.type == MessageEntity.BOT_COMMAND and entity.offset == 0 for entity in entities):
        return None
    first, *rest = text.removeprefix("/").split(maxsplit=1)
    name, _, addressee = first.partition("@")
    return Invocation(name.lower(), addressee.lower() or None, "".join(rest).strip())


def menu_of(table: CommandTable) -> list[BotCommand]:
    """One entry for each group or single command, and `/start`, which Telegram sends at first contact."""
    groups: dict[str, list[Command]] = {}
    for command in table:
        groups.setdefault(command.path[0], []).append(command)
    entries = [BotCommand(name, _menu_description(members)) for name, members in groups.items() if _is_menu_name(name)]
    if "start" not in groups:
        entries.append(BotCommand("start", "Say hello"))
    return entries[:_MAX_MENU_COMMANDS]


def _is_menu_name(name: str) -> bool:
    if _MENU_NAME.fullmatch(name):
        return True
    logger.warning("command %r is missing in Telegram's menu: only a-z, 0-9 and _ are allowed there", name)
    return False


def _menu_description(members: Sequence[Command]) -> str:
    if len(members) == 1 and len(members[0].path) == 1:
        return members[0].description[:_MAX_DESCRIPTION]
    names = " | ".join(member.path[-1] for member in members if len(member.path) > 1)
    return f"{names}: {members[0].description}"[:_MAX_DESCRIPTION]


async def publish_menu(client: TelegramClient, table: CommandTable) -> None:
    """Register the menu. What the server refuses is logged: the commands work without it."""
    try:
        await client.set_my_commands(menu_of(table))
    except BadRequest as error:
        logger.warning("Telegram refuses the command menu: %s", error.message)


class CommandButtons:
    """Choices as inline buttons that still work after a restart.

    A button carries four characters for command and argument, then the value, in at most 64 bytes. A value too long
    for that is carried as its digest, and found again among the argument's suggestions.
    """

    def __init__(self, table: CommandTable) -> None:
        self._targets: dict[str, tuple[Command, Argument]] = {}
        for command in table:
            for argument in command.arguments:
                key = _short_digest("\0".join([*command.path, argument.name]), 3)
                if key in self._targets:
                    raise ValueError(
                        f"rename the argument {argument.name!r} of {command.path}: its button key is taken"
                    )
                self._targets[key] = (command, argument)
        self._keys = {(command.path, argument.name): key for key, (command, argument) in self._targets.items()}

    def keyboard(self, reply: CommandReply) -> InlineKeyboardMarkup | None:
        """The buttons of `reply`, if it offers a choice of something that can be run."""
        key = self._keys.get((reply.choice_path, reply.choice_argument))
        if key is None or not reply.choices:
            return None
        buttons = [
            InlineKeyboardButton(choice.label or choice.value, callback_data=_callback_data(key, choice.value))
            for choice in reply.choices[:_MAX_BUTTONS]
        ]
        width = 2 if all(len(button.text) <= _SHORT_LABEL for button in buttons) else 1
        return InlineKeyboardMarkup([buttons[at : at + width] for at in range(0, len(buttons), width)])

    async def resolve(self, data: str, call: CommandCall) -> tuple[Command, CommandCall] | None:
        """The command that a pressed button stands for, and `call` with its argument; `None` if it is out of date."""
        target = self._targets.get(data[:4])
        if target is None:
            return None
        command, argument = target
        mark, value = data[4:5], data[5:]
        if mark == "#":
            choices = await argument.suggest(call, "") if argument.suggest else ()
            matching = (choice.value for choice in choices if _short_digest(choice.value, 15) == value)
            found = next(matching, None)
            if found is None:
                return None
            value = found
        return command, replace(call, arguments={argument.name: value})


def _callback_data(key: str, value: str) -> str:
    plain = f"{key}={value}"
    return plain if len(plain.encode()) <= _MAX_CALLBACK_BYTES else f"{key}#{_short_digest(value, 15)}"


def _short_digest(text: str, num_bytes: int) -> str:
    return urlsafe_b64encode(hashlib.blake2b(text.encode(), digest_size=num_bytes).digest()).decode()


class TelegramCommands:
    """Runs commands that were typed or pressed, and answers them."""

    def __init__(self, client: TelegramClient, table: CommandTable) -> None:
        self._client = client
        self._table = table
        self._buttons = CommandButtons(table)

    def is_for_others(self, invocation: Invocation, chat: Chat) -> bool:
        """Whether a group's command is meant for another bot: it says so, or nobody here knows it."""
        if chat.type == Chat.PRIVATE:
            return False
        if invocation.addressee is not None:
            return invocation.addressee != self._client.username.lower()
        return invocation.name != "start" and not any(command.path[0] == invocation.name for command in self._table)

    async def run(self, invocation: Invocation, messages: Sequence[Message], channel: TelegramChannel) -> None:
        """Run a typed command, which came in a message or in an album's caption, and answer it."""
        message = messages[0]
        call = CommandCall(
            room_of(message),
            kind_of(message.chat),
            author_of(message),
            files=tuple(file for part in messages for file in files_of(self._client, part)),
            reply_to=replied_message(self._client, message),
        )
        reply_to = None if message.chat.type == Chat.PRIVATE else str(message.message_id)
        await self._answer(lambda: self._run_typed(invocation, call), channel, reply_to=reply_to)

    async def press(self, query: CallbackQuery, channel: TelegramChannel) -> None:
        """Run the command of a pressed button and answer it. The button stops spinning at once."""
        message = query.message
        if message is None or query.data is None:
            await self._stop_spinning(query)
            return
        room = room_of(message) if isinstance(message, Message) else Room(PLATFORM, str(message.chat.id))
        call = CommandCall(room, kind_of(message.chat), author_from(query.from_user))
        data = query.data
        await self._stop_spinning(query)
        await self._answer(lambda: self._run_pressed(data, call), channel, reply_to=None)

    async def _stop_spinning(self, query: CallbackQuery) -> None:
        try:
            await self._client.answer_callback_query(query.id)
        except (TelegramError, *MALFORMED_ANSWER) as error:
            # Only the little clock on the button stays; the command is run all the same.
            logger.info("a pressed button could not be confirmed: %s", error)

    async def _run_pressed(self, data: str, call: CommandCall) -> CommandReply:
        resolved = await self._buttons.resolve(data, call)
        if resolved is None:
            return CommandReply(OUTDATED_BUTTON)
        command, complete_call = resolved
        return await command.run(complete_call)

    async def _run_typed(self, invocation: Invocation, call: CommandCall) -> CommandReply:
        command, rest = self._find(invocation)
        if command is None:
            return CommandReply(self._known_commands())
        arguments = _split_arguments(command, rest)
        missing = next((a for a in command.arguments if a.is_required and a.name not in arguments), None)
        complete_call = replace(call, arguments=arguments)
        if missing is not None:
            return await _ask_for(missing, command, complete_call)
        return await command.run(complete_call)

    def _find(self, invocation: Invocation) -> tuple[Command | None, str]:
        """The command meant by `/name word rest`, and what is left as its arguments."""
        word, *after = invocation.rest.split(maxsplit=1) or [""]
        if command := self._table.find(invocation.name, word.lower()):
            return command, "".join(after)
        if command := self._table.find(invocation.name):
            return command, invocation.rest
        members = [command for command in self._table if command.path[0] == invocation.name]
        if members:
            alone = (c for c in members if not any(argument.is_required for argument in c.arguments))
            return self._table.find(invocation.name, "list") or next(alone, members[0]), ""
        fallbacks = ("start", "help") if invocation.name == "start" else ("help", "start")
        return next((found for name in fallbacks if (found := self._table.find(name))), None), ""

    def _known_commands(self) -> str:
        lines = [f"/{' '.join(command.path)}: {command.description}" for command in self._table]
        return "\n".join(["I know these commands:", *lines])

    async def _answer(
        self, run: Callable[[], Awaitable[CommandReply]], channel: TelegramChannel, *, reply_to: str | None
    ) -> None:
        """Run and reply. A boundary: whatever goes wrong is told to the person, and logged."""
        try:
            async with _typing(channel):
                reply = await run()
        except BotError as error:
            reply = CommandReply(str(error))
        except Exception:
            logger.exception("a command failed")
            reply = CommandReply(APOLOGY)
        await self._show(reply, channel, reply_to=reply_to)

    async def _show(self, reply: CommandReply, channel: TelegramChannel, *, reply_to: str | None) -> None:
        """The text and the pictures: a short text is the caption of the first one."""
        keyboard = self._buttons.keyboard(reply)
        text, pictures = reply.text or "Done.", list(reply.pictures)
        if pictures and utf16_length(text) <= MAX_CAPTION_LENGTH:
            first = pictures[0]
            captioned = partial(channel.send_picture, first.data, name=first.name, caption=text, keyboard=keyboard)
            if await _send(partial(captioned, reply_to=reply_to)):
                text, pictures = "", pictures[1:]
        await self._show_text(text, channel, reply_to=reply_to, keyboard=keyboard)
        for picture in pictures:
            await _send(partial(channel.send_picture, picture.data, name=picture.name, reply_to=reply_to))

    async def _show_text(
        self, text: str, channel: TelegramChannel, *, reply_to: str | None, keyboard: InlineKeyboardMarkup | None
    ) -> None:
        if not text:
            return
        *heads, last = split_text(text, channel.limits.max_text_length)
        for head in heads:
            await _send(partial(channel.send, head, reply_to=reply_to))
        await _send(partial(channel.send, last, reply_to=reply_to, keyboard=keyboard))


async def _ask_for(argument: Argument, command: Command, call: CommandCall) -> CommandReply:
    """Say how the command is used, and offer what is suggested for the missing argument."""
    usage = " ".join([f"/{' '.join(command.path)}", *(f"<{each.name}>" for each in command.arguments)])
    choices: tuple[Choice, ...] = await argument.suggest(call, "") if argument.suggest else ()
    return CommandReply(
        f"{usage}\n{argument.description}",
        # A button fills one argument, so it helps only where no other is needed.
        choices=choices if sum(each.is_required for each in command.arguments) == 1 else (),
        choice_path=command.path,
        choice_argument=argument.name,
    )


def _split_arguments(command: Command, rest: str) -> dict[str, str]:
    """One word for each argument, and all that is left for the last."""
    values = rest.split(maxsplit=max(0, len(command.arguments) - 1)) if command.arguments else []
    return {argument.name: value for argument, value in zip(command.arguments, values, strict=False)}


@contextlib.asynccontextmanager
async def _typing(channel: TelegramChannel) -> AsyncIterator[None]:
    """Show that an answer is on its way, if it takes a while."""

    async def pulse() -> None:
        await asyncio.sleep(_TYPING_AFTER_S)
        while True:
            with contextlib.suppress(DeliveryError):
                await channel.show_typing()
            await asyncio.sleep(channel.limits.typing_interval_s)

    task = asyncio.create_task(pulse())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _send(send: Callable[[], Awaitable[str]]) -> bool:
    """Send, with patience where Telegram asks for it, and say whether it went; what cannot be sent is logged."""
    for _ in range(_NUM_TRIES):
        try:
            await send()
            return True
        except RateLimited as error:
            await asyncio.sleep(min(error.retry_after_s, _MAX_WAIT_S))
        except DeliveryError as error:
            logger.warning("a command's answer could not be sent: %s", error)
            return False
    logger.warning("a command's answer could not be sent: Telegram asked for patience %d times", _NUM_TRIES)
    return False
