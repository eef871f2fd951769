"""The command table as Telegram shows it: BotFather's menu, `/persona use Luna`, buttons, and questions to answer.

Owns parsing, who may use what, and how answers and failures are shown. Knows nothing of what a command does.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from telegram import BotCommand, CallbackQuery, Chat, ForceReply, InlineKeyboardMarkup, Message, MessageEntity, User
from telegram.error import BadRequest, TelegramError

from bot.adapters.telegram.channel import MAX_CAPTION_LENGTH, TelegramChannel
from bot.adapters.telegram.chats import PLATFORM
from bot.adapters.telegram.client import MALFORMED_ANSWER, TelegramClient, split_text, utf16_length
from bot.adapters.telegram.connection import Connection
from bot.adapters.telegram.messages import (
    author_from,
    author_of,
    files_of,
    kind_of,
    replied_message,
    room_of,
)
from bot.adapters.telegram.prompts import PromptAnswer, Prompts
from bot.commands import Argument, Choice, Command, CommandCall, CommandReply, CommandTable
from bot.errors import BotError, DeliveryError, RateLimited
from bot.types import ChatKind, Room

logger = logging.getLogger(__name__)

APOLOGY = "Sorry, that went wrong. The bot's admin finds the reason in the log; please try again later."
OUTDATED_BUTTON = "This button is out of date. Use the command again to get new ones."
MODERATORS_ONLY = "Only admins of this group who may delete messages can use /{command}."

_MENU_NAME = re.compile(r"[a-z0-9_]{1,32}")
_MAX_MENU_COMMANDS = 100
_MAX_DESCRIPTION = 256
_MAX_ALERT = 200
_MAX_PLACEHOLDER = 64
_NUM_TRIES = 4
_MAX_WAIT_S = 60.0
# Quick answers need no sign that they are coming.
_TYPING_AFTER_S = 0.5
# A button stops spinning then; before that, what it has to say may come as a small window of its own.
_CONFIRM_AFTER_S = 1.0
_DONE = "👌"


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command as it was typed: `/name@addressee rest`."""

    name: str
    addressee: str | None
    rest: str


@dataclass(frozen=True, slots=True)
class _Question:
    """What a command needs to be told before it can run."""

    command: Command
    argument: Argument
    call: CommandCall


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


class TelegramCommands:
    """Runs commands that were typed, pressed or asked about, and answers them."""

    def __init__(self, connection: Connection, table: CommandTable) -> None:
        self._connection = connection
        self._client = connection.client
        self._table = table
        self._buttons = connection.buttons
        self._prompts = Prompts(connection.client, connection.buttons)

    def is_for_others(self, invocation: Invocation, chat: Chat) -> bool:
        """Whether a group's command is meant for another bot: it says so, or nobody here knows it."""
        if chat.type == Chat.PRIVATE:
            return False
        if invocation.addressee is not None:
            return invocation.addressee != self._client.username.lower()
        return invocation.name != "start" and not any(command.path[0] == invocation.name for command in self._table)

    def answered_by(self, message: Message) -> PromptAnswer | None:
        """The question that `message` answers, if it does."""
        return self._prompts.answered_by(message)

    async def run(self, invocation: Invocation, messages: Sequence[Message], channel: TelegramChannel) -> None:
        """Run a typed command, which came in a message or in an album's caption, and answer it."""
        message = messages[0]
        call = self._call_from(messages, channel)
        reply_to = _reply_to(message)
        outcome = await self._outcome(lambda: self._run_typed(invocation, call, message), channel)
        if isinstance(outcome, _Question):
            await self._ask(outcome, channel, reply_to=reply_to, asked=None)
        elif not (outcome.is_silent and await _is_seen_done(message, channel)):
            await self._show(outcome, channel, reply_to=reply_to)

    async def answer(self, answer: PromptAnswer, message: Message, channel: TelegramChannel) -> None:
        """Run the command that `answer` completes, and take its question away."""
        call = replace(
            self._call_from([message], channel),
            arguments={answer.argument.name: answer.text},
            reply_to=None,
            message_id=answer.message_id,
        )
        outcome = await self._outcome(lambda: self._run_allowed(answer.command, call, message), channel)
        with contextlib.suppress(DeliveryError):
            await channel.delete(answer.prompt_id)
        if isinstance(outcome, CommandReply) and not outcome.is_silent:
            await self._show(outcome, channel, reply_to=_reply_to(message))

    async def press(self, query: CallbackQuery, channel: TelegramChannel) -> None:
        """Run the command of a pressed button and answer it. The button stops spinning soon."""
        message = query.message
        if message is None or query.data is None:
            await self._stop_spinning(query)
            return
        room = room_of(message) if isinstance(message, Message) else Room(PLATFORM, str(message.chat.id))
        call = CommandCall(
            room,
            kind_of(message.chat),
            author_from(query.from_user),
            message_id=str(message.message_id),
            channel=channel,
        )
        data = query.data
        work = asyncio.ensure_future(self._outcome(lambda: self._run_pressed(data, call, query.from_user), channel))
        try:
            await asyncio.wait({work}, timeout=_CONFIRM_AFTER_S)
            is_answered = await self._confirm(query, work.result() if work.done() else None)
            outcome = await work
        finally:
            work.cancel()
        if isinstance(outcome, _Question):
            await self._ask(outcome, channel, reply_to=None, asked=query.from_user)
        elif not outcome.is_silent and not is_answered:
            await self._show(outcome, channel, reply_to=None)

    async def _confirm(self, query: CallbackQuery, outcome: CommandReply | _Question | None) -> bool:
        """Let the button stop spinning, and say whether that told the outcome already, to one person alone."""
        if not isinstance(outcome, CommandReply) or outcome.is_silent or not outcome.is_private:
            await self._stop_spinning(query)
            return False
        is_short = utf16_length(outcome.text) <= _MAX_ALERT and not outcome.choices and not outcome.pictures
        return await self._stop_spinning(query, outcome.text if is_short else None) and is_short

    async def _stop_spinning(self, query: CallbackQuery, text: str | None = None) -> bool:
        try:
            await self._client.answer_callback_query(query.id, text, show_alert=text is not None)
        except (TelegramError, *MALFORMED_ANSWER) as error:
            # Only the little clock on the button stays, such as where "query is too old"; the command is run all the
            # same.
            logger.debug("a pressed button could not be confirmed: %s", type(error).__name__)
            return False
        return True

    # Running

    async def _run_pressed(self, data: str, call: CommandCall, presser: User) -> CommandReply | _Question:
        resolved = await self._buttons.resolve(data, call)
        if resolved is None:
            return CommandReply(OUTDATED_BUTTON, is_private=True)
        return await self._run_allowed(*resolved, presser)

    async def _run_typed(self, invocation: Invocation, call: CommandCall, message: Message) -> CommandReply | _Question:
        command, rest = self._find(invocation)
        if command is None:
            return CommandReply(self._known_commands())
        return await self._run_allowed(command, replace(call, arguments=_split_arguments(command, rest)), message)

    async def _run_allowed(self, command: Command, call: CommandCall, by: User | Message) -> CommandReply | _Question:
        """Run `command`, if its user may and has said all that it needs."""
        if command.for_moderators or not command.only_looks:
            call = replace(call, is_moderator=await self._is_moderator(call, by))
        if command.for_moderators and not call.is_moderator:
            return CommandReply(MODERATORS_ONLY.format(command=" ".join(command.path)), is_private=True)
        missing = next((a for a in command.arguments if a.is_required and not call.arguments.get(a.name)), None)
        if missing is None:
            return await command.run(call)
        return _Question(command, missing, call) if missing.is_prose else await _ask_for(missing, command, call)

    async def _is_moderator(self, call: CommandCall, by: User | Message) -> bool:
        """In a chat of two there is nobody else's message to delete. An anonymous admin writes as the group itself."""
        if call.kind is ChatKind.DIRECT:
            return True
        if isinstance(by, Message) and by.sender_chat is not None:
            return by.sender_chat.id == by.chat.id
        user = by.from_user if isinstance(by, Message) else by
        return user is not None and await self._connection.chats.is_moderator(int(call.room.chat_id), user.id)

    def _call_from(self, messages: Sequence[Message], channel: TelegramChannel) -> CommandCall:
        message = messages[0]
        return CommandCall(
            room_of(message),
            kind_of(message.chat),
            author_of(message),
            files=tuple(file for part in messages for file in files_of(self._client, part)),
            reply_to=replied_message(self._client, message),
            channel=channel,
        )

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

    async def _outcome(
        self, run: Callable[[], Awaitable[CommandReply | _Question]], channel: TelegramChannel
    ) -> CommandReply | _Question:
        """What comes of it. A boundary: whatever goes wrong is told to the person, and logged."""
        try:
            async with _typing(channel):
                return await run()
        except BotError as error:
            return CommandReply(str(error), is_private=True)
        except Exception:
            logger.exception("a command failed")
            return CommandReply(APOLOGY, is_private=True)

    # Showing

    async def _ask(
        self, question: _Question, channel: TelegramChannel, *, reply_to: str | None, asked: User | None
    ) -> None:
        """Ask for a longer text. The field to answer opens by itself, for the one who is asked alone."""
        call, argument = question.call, question.argument
        about = call.message_id or (call.reply_to.message_id if call.reply_to else None)
        is_group = call.kind is ChatKind.GROUP
        formatted = self._prompts.question(
            question.command,
            argument,
            chat_id=channel.chat_id,
            message_id=about if about and about.isdecimal() else None,
            asked=asked if is_group else None,
            prefill=await _prefill(argument, call),
        )
        field = ForceReply(selective=is_group, input_field_placeholder=argument.description[:_MAX_PLACEHOLDER])
        await _send(channel, partial(channel.send_formatted, formatted, reply_to=reply_to, markup=field))

    async def _show(self, reply: CommandReply, channel: TelegramChannel, *, reply_to: str | None) -> None:
        """The text and the pictures: a short text is the caption of the first one."""
        keyboard = self._buttons.keyboard(reply)
        text, pictures = reply.text or "Done.", list(reply.pictures)
        if pictures and channel.limits.measure(text) <= MAX_CAPTION_LENGTH:
            first = pictures[0]
            captioned = partial(channel.send_picture, first.data, name=first.name, caption=text, keyboard=keyboard)
            if await _send(channel, partial(captioned, reply_to=reply_to)):
                text, pictures = "", pictures[1:]
        await self._show_text(text, channel, reply_to=reply_to, keyboard=keyboard)
        for picture in pictures:
            sent = partial(channel.send_picture, picture.data, name=picture.name, reply_to=reply_to)
            await _send(channel, sent)

    async def _show_text(
        self, text: str, channel: TelegramChannel, *, reply_to: str | None, keyboard: InlineKeyboardMarkup | None
    ) -> None:
        if not text:
            return
        *heads, last = split_text(text, channel.limits.max_text_length, measure=channel.limits.measure)
        for head in heads:
            await _send(channel, partial(channel.send, head, reply_to=reply_to))
        await _send(channel, partial(channel.send, last, reply_to=reply_to, keyboard=keyboard))


async def _is_seen_done(message: Message, channel: TelegramChannel) -> bool:
    """In a group nobody can be told something alone: an emoji under the command says that it was done."""
    if message.chat.type == Chat.PRIVATE:
        return False
    try:
        return await channel.try_to_react(str(message.message_id), _DONE)
    except DeliveryError:
        return False


async def _prefill(argument: Argument, call: CommandCall) -> str:
    if argument.prefill is None:
        return ""
    try:
        return await argument.prefill(call)
    except BotError as error:
        logger.debug("there is nothing to begin with: %s", type(error).__name__)
        return ""


def _reply_to(message: Message) -> str | None:
    return None if message.chat.type == Chat.PRIVATE else str(message.message_id)


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


async def _send(channel: TelegramChannel, send: Callable[[], Awaitable[str]]) -> bool:
    """Send, with patience where Telegram asks for it, and say whether it went; what cannot be sent is logged."""
    for _ in range(_NUM_TRIES):
        try:
            await channel.ready(is_urgent=True)
            await send()
            return True
        except RateLimited as error:
            await asyncio.sleep(min(error.retry_after_s, _MAX_WAIT_S))
        except DeliveryError as error:
            logger.warning("a command's answer could not be sent: %s", error)
            return False
    logger.warning("a command's answer could not be sent: Telegram asked for patience %d times", _NUM_TRIES)
    return False
