"""A platform in memory: an adapter and its channels, held to the same contract as the real ones.

`FakeChannel` records what people see; `FakeAdapter` turns what a test says into events, one task a message.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bot.adapters.base import Adapter, AdapterState, AdapterStatus, MessageHandler, PlatformLimits, ReplyChannel
from bot.commands import CommandCall, CommandReply, CommandTable
from bot.errors import BotError, DeliveryError, MediaError
from bot.types import (
    Author,
    ChatKind,
    Control,
    IncomingFile,
    IncomingMessage,
    IncomingReaction,
    RepliedMessage,
    Room,
    Speaker,
)

BOT = Author("fake", "bot", "Bot", is_bot=True)
ANN = Author("fake", "ann", "Ann")
EVE = Author("fake", "eve", "Ann")
LIMITS = PlatformLimits(2000, 0.01, 0.05, 10 * 2**20)


@dataclass
class SentMessage:
    """A message that the bot sent: `texts` is what it showed, the newest last."""

    id: str
    texts: list[str]
    reply_to: str | None
    times: list[float]
    controls: tuple[Control, ...] = ()
    speaker: Speaker | None = None

    @property
    def text(self) -> str:
        """What it shows now."""
        return self.texts[-1]


@dataclass
class FakeChannel(ReplyChannel):
    """A `ReplyChannel`. `failures` are raised by the next calls of `send` and `edit`, `None` lets one pass.

    Whoever speaks in it, all of it is in the same lists.
    """

    limits: PlatformLimits = LIMITS
    sent: list[SentMessage] = field(default_factory=list)
    failures: list[BotError | None] = field(default_factory=list)
    reactions: list[tuple[str, str]] = field(default_factory=list)
    stickers: list[Path] = field(default_factory=list)
    speaker: Speaker | None = None
    num_typing: int = 0
    delay_s: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    new_id: Callable[[], str] = field(default_factory=lambda: map("sent-{}".format, itertools.count(1)).__next__)

    @property
    def texts(self) -> list[str]:
        """What the messages show now."""
        return [message.text for message in self.sent]

    async def show_typing(self) -> None:
        self.num_typing += 1

    async def send(self, text: str, *, reply_to: str | None = None, controls: tuple[Control, ...] = ()) -> str:
        await self._work(text)
        message = SentMessage(
            self.new_id(), [text], reply_to, [asyncio.get_running_loop().time()], controls, self.speaker
        )
        self.sent.append(message)
        self.changed.set()
        return message.id

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:
        await self._work(text)
        message = self._message(message_id)
        message.texts.append(text)
        message.times.append(asyncio.get_running_loop().time())
        message.controls = controls
        self.changed.set()

    async def show_controls(self, message_id: str, controls: tuple[Control, ...]) -> None:
        self._message(message_id).controls = controls
        self.changed.set()

    async def delete(self, message_id: str) -> None:
        self.sent[:] = [message for message in self.sent if message.id != message_id]
        self.changed.set()

    async def react(self, message_id: str, emoji: str) -> None:
        self.reactions.append((message_id, emoji))
        self.changed.set()

    async def send_sticker(self, sticker: Path) -> str | None:
        self.stickers.append(sticker)
        self.changed.set()
        return self.new_id()

    def speaking_as(self, speaker: Speaker) -> Self:
        return replace(self, speaker=speaker)

    def _message(self, message_id: str) -> SentMessage:
        message = next((message for message in self.sent if message.id == message_id), None)
        if message is None:
            raise DeliveryError(f"there is no message {message_id} here")
        return message

    async def _work(self, text: str) -> None:
        assert text.strip(), "a platform refuses empty messages"
        assert self.limits.measure(text) <= self.limits.max_text_length, "a platform refuses long messages"
        await asyncio.sleep(self.delay_s)
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure

    async def wait_until(self, is_reached: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
        """Wait for something to be shown."""
        async with asyncio.timeout(timeout_s):
            while not is_reached():
                self.changed.clear()
                await self.changed.wait()


def a_file(data: bytes, *, name: str = "picture.png", mime: str | None = "image/png") -> IncomingFile:
    """A file on the fake platform. Like the real ones, it stops a download at the limit."""

    async def read(max_bytes: int) -> bytes:
        if len(data) > max_bytes:
            raise MediaError(f"{name} is too large")
        return data

    return IncomingFile(name, mime, len(data), read)


class FakeAdapter(Adapter):
    """An `Adapter`. Start `run` as a task, then let people `say` something."""

    name = "fake"

    def __init__(self, handler: MessageHandler, commands: CommandTable) -> None:
        self._handler = handler
        self._commands = commands
        self._status = AdapterStatus(AdapterState.STARTING)
        self._happened: asyncio.Queue[Coroutine[Any, Any, None]] = asyncio.Queue()
        self._channels: dict[Room, FakeChannel] = {}
        self._messages: dict[str, IncomingMessage] = {}
        self._new_id = map("said-{}".format, itertools.count(1)).__next__
        self.is_running = asyncio.Event()

    @property
    def status(self) -> AdapterStatus:
        return self._status

    async def run(self) -> None:
        self._status = AdapterStatus(AdapterState.RUNNING)
        self.is_running.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    tasks.create_task(self._guard(await self._happened.get()))
        finally:
            self._status = AdapterStatus(AdapterState.STOPPED)

    async def _guard(self, handling: Coroutine[Any, Any, None]) -> None:
        try:
            await handling
        except Exception:
            logging.getLogger(__name__).exception("the handler broke its promise")

    def channel(self, room: Room, kind: ChatKind) -> ReplyChannel | None:
        return self.channel_of(room.chat_id)

    def channel_of(self, chat_id: str = "1") -> FakeChannel:
        """The channel of a chat."""
        return self._channels.setdefault(Room("fake", chat_id), FakeChannel())

    def say(
        self,
        text: str,
        *,
        picture: bytes | None = None,
        reply_to: str | None = None,
        chat_id: str = "1",
        is_group: bool = False,
        mentions_bot: bool = False,
    ) -> str:
        """Let Ann say something, and return her message's id."""
        message = IncomingMessage(
            room=Room("fake", chat_id),
            kind=ChatKind.GROUP if is_group else ChatKind.DIRECT,
            message_id=self._new_id(),
            author=ANN,
            text=text,
            files=() if picture is None else (a_file(picture),),
            reply_to=self._replied(reply_to, chat_id) if reply_to else None,
            mentions_bot=mentions_bot,
        )
        self._messages[message.message_id] = message
        self._happened.put_nowait(self._handler.handle(message, self.channel_of(chat_id)))
        return message.message_id

    async def press(
        self, message_id: str, label: str, *, chat_id: str = "1", is_group: bool = False, by_other: bool = False
    ) -> CommandReply:
        """Let Ann, or Eve, press a button under a message."""
        channel = self.channel_of(chat_id)
        sent = next(sent for sent in channel.sent if sent.id == message_id)
        control = next(control for control in sent.controls if control.label == label)
        command = self._commands.find(*control.path)
        assert command is not None
        call = CommandCall(
            Room("fake", chat_id),
            ChatKind.GROUP if is_group else ChatKind.DIRECT,
            EVE if by_other else ANN,
            {control.argument: control.value} if control.argument else {},
            message_id=message_id,
            channel=channel,
        )
        try:
            return await command.run(call)
        except BotError as error:
            return CommandReply(str(error), is_private=True)

    def edit_said(self, message_id: str, text: str, *, chat_id: str = "1") -> None:
        """Let Ann change what she wrote."""
        edited = replace(self._messages[message_id], text=text)
        self._happened.put_nowait(self._handler.handle_edit(edited, self.channel_of(chat_id)))

    def delete_said(self, message_id: str, *, chat_id: str = "1") -> None:
        """Let Ann delete what she wrote."""
        room = Room("fake", chat_id)
        self._happened.put_nowait(self._handler.handle_deletion(room, (message_id,), self.channel_of(chat_id)))

    def react(self, message_id: str, emoji: str, *, chat_id: str = "1", is_group: bool = False) -> None:
        """Let Ann put an emoji under a message."""
        kind = ChatKind.GROUP if is_group else ChatKind.DIRECT
        reaction = IncomingReaction(Room("fake", chat_id), kind, message_id, ANN, emoji)
        self._happened.put_nowait(self._handler.handle_reaction(reaction, self.channel_of(chat_id)))

    def _replied(self, message_id: str, chat_id: str) -> RepliedMessage:
        if earlier := self._messages.get(message_id):
            return RepliedMessage(message_id, earlier.author, earlier.text, earlier.files)
        text = next(sent.text for sent in self.channel_of(chat_id).sent if sent.id == message_id)
        return RepliedMessage(message_id, BOT, text, is_from_bot=True)

    async def use_command(
        self,
        path: tuple[str, ...],
        arguments: Mapping[str, str],
        *,
        chat_id: str = "1",
        picture: bytes | None = None,
        reply_to: str | None = None,
    ) -> CommandReply:
        """Let Ann use a command in her direct chat."""
        command = self._commands.find(*path)
        assert command is not None
        call = CommandCall(
            Room("fake", chat_id),
            ChatKind.DIRECT,
            ANN,
            arguments,
            files=() if picture is None else (a_file(picture),),
            reply_to=self._replied(reply_to, chat_id) if reply_to else None,
            channel=self.channel_of(chat_id),
        )
        try:
            return await command.run(call)
        except BotError as error:
            return CommandReply(str(error))
