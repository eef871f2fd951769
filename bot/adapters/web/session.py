"""One browser's conversations: what it sent, what comes back, and which persona it looks at.

Tabs of one browser share a session and only watch it: a reply belongs to the session, so a closed tab loses nothing.
Knows neither HTML nor HTTP.
"""

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

from bot.adapters.base import ConversationBrowser, MessageHandler
from bot.adapters.web.channel import MAX_FILE_BYTES, Exchange, PageChannel, UnseenChannel
from bot.adapters.web.pictures import picture_type
from bot.adapters.web.transcript import (
    Bubble,
    Offer,
    ShownPicture,
    Speaker,
    Transcript,
    stored_pictures,
)
from bot.commands import Command, CommandCall, CommandReply, CommandTable, ReplyPicture
from bot.errors import BotError, MediaError
from bot.types import Author, ChatKind, IncomingFile, IncomingMessage, Room, StoredTurn
from engine.types import Role

log = logging.getLogger(__name__)

MAX_FILES = 4
MAX_TEXT_LENGTH = 20_000
KEEP_IDLE_S = 600.0
# Pictures that commands answered with; the browser has fetched them long before they have to go.
MAX_DRAWN = 24
# A command that takes longer is left to itself, and its answer appears when it is there.
PROMPT_ANSWER_S = 0.5
COMMAND_LIKE = re.compile(r"/[a-z]+(?:\s|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that the browser has handed over, in memory until its message is answered."""

    name: str
    mime: str | None
    data: bytes = field(repr=False)

    async def read(self, max_bytes: int) -> bytes:
        """The file's bytes, as `IncomingFile.read` promises them."""
        if len(self.data) > max_bytes:
            raise MediaError(f"{self.name} is too large: at most {max_bytes // 2**20} MB, please")
        return self.data


class SessionView(Protocol):
    """A tab that watches the session."""

    def show_bubble(self, bubble: Bubble) -> None:
        """A bubble of the conversation on show is new or changed."""

    def show_activity(self) -> None:
        """A reply has begun, has something to read, or has ended."""

    def show_finished(self, text: str) -> None:
        """A reply is complete."""

    def refresh(self) -> None:
        """Another conversation is on show, or the whole of it is new."""


class Session:
    """One browser, found again by its cookie."""

    def __init__(
        self,
        session_id: str,
        handler: MessageHandler,
        *,
        browser: ConversationBrowser,
        commands: CommandTable,
        max_files: int = MAX_FILES,
    ) -> None:
        self.room = Room(platform="web", chat_id=session_id)
        self.author = Author(platform="web", user_id=session_id, display_name="")
        self.max_files = max_files
        self.persona_id = ""
        self.last_used_s = time.monotonic()
        self._handler = handler
        self._browser = browser
        self._commands = commands
        self._transcripts: dict[str, Transcript] = {}
        self._exchanges: list[Exchange] = []
        self._uploads: dict[str, Upload] = {}
        self._drawn: dict[str, ReplyPicture] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._views: list[SessionView] = []
        self._moving = asyncio.Lock()

    # What is on show

    @property
    def transcript(self) -> Transcript:
        """The conversation with the chosen persona."""
        return self._transcript_of(self.persona_id)

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is due of which nothing can be read yet."""
        running = self._running()
        return bool(running or self._looking) and not any(exchange.has_answer for exchange in running)

    @property
    def is_answering(self) -> bool:
        """Whether an answer is due or being written."""
        return bool(self._running() or self._looking)

    @property
    def is_idle(self) -> bool:
        """Whether nobody looks and nothing runs: the store knows all that is worth keeping."""
        return not self._views and not self._exchanges and not self._looking and not self._moving.locked()

    def watch(self, view: SessionView) -> None:
        """Tell `view` of everything from now on."""
        self._views.append(view)

    def unwatch(self, view: SessionView) -> None:
        """Tell `view` no more."""
        if view in self._views:
            self._views.remove(view)
        self._rest_if_idle()

    # Moving between conversations

    async def open(self) -> None:
        """Find the chosen persona and its conversation."""
        async with self._moving:
            await self._show_chosen()

    async def choose(self, persona_id: str) -> None:
        """Talk to another persona; a reply of the present one goes on."""
        async with self._moving:
            try:
                await self._browser.choose(self.room, persona_id)
            except BotError as error:
                self._note(str(error))
                return
            await self._show_chosen()
        self._refresh_views()

    async def start_over(self) -> None:
        """Forget the conversation on show."""
        async with self._moving:
            await self._end(self._running())
            try:
                await self._browser.start_over(self.room)
            except BotError as error:
                self._note(str(error))
                return
            self._transcripts.pop(self.persona_id, None)
            await self._show_chosen()
        self._refresh_views()

    async def _show_chosen(self) -> None:
        try:
            self.persona_id = await self._browser.chosen(self.room)
            if not self.transcript.is_loaded and not self._running():
                turns = await self._browser.history(self.room)
                self._transcripts[self.persona_id] = self._new_transcript(self.persona_id, turns)
        except BotError as error:
            self._note(str(error))

    def _transcript_of(self, persona_id: str) -> Transcript:
        if persona_id not in self._transcripts:
            self._transcripts[persona_id] = self._new_transcript(persona_id)
        return self._transcripts[persona_id]

    def _new_transcript(self, persona_id: str, turns: list[StoredTurn] | None = None) -> Transcript:
        return Transcript(lambda bubble: self._show_bubble(persona_id, bubble), turns)

    def _rest_if_idle(self) -> None:
        self.last_used_s = time.monotonic()
        if self.is_idle:
            self._transcripts.clear()
            self._uploads.clear()
            self._drawn.clear()

    # Writing

    def add_upload(self, upload: Upload) -> str:
        """Keep a file for a message to come, and return its id. Raises `MediaError` for one that is too large."""
        if len(upload.data) > MAX_FILE_BYTES:
            raise MediaError(f"{upload.name} is too large: at most {MAX_FILE_BYTES // 2**20} MB, please")
        in_use = {upload_id for exchange in self._exchanges for upload_id in exchange.upload_ids}
        waiting = [upload_id for upload_id in self._uploads if upload_id not in in_use]
        # Another tab may be filling a message too.
        for upload_id in waiting[: max(0, len(waiting) + 1 - 2 * self.max_files)]:
            del self._uploads[upload_id]
        upload_id = uuid4().hex
        self._uploads[upload_id] = upload
        self.last_used_s = time.monotonic()
        return upload_id

    def remove_upload(self, upload_id: str) -> None:
        """Drop a file that is not to be sent after all."""
        if not any(upload_id in exchange.upload_ids for exchange in self._exchanges):
            self._uploads.pop(upload_id, None)

    def upload(self, upload_id: str) -> Upload | None:
        """A file that this browser handed over, while it is kept."""
        return self._uploads.get(upload_id)

    def drawn(self, picture_id: str) -> ReplyPicture | None:
        """A picture that a command of this browser's answered with, while it is kept."""
        return self._drawn.get(picture_id)

    async def say(self, text: str, upload_ids: tuple[str, ...] = ()) -> str | None:
        """Send a message and return its id; a command is run and has none. Raises `MediaError` for a bad message."""
        text = text.strip()
        if not text and not upload_ids:
            return None
        if len(text) > MAX_TEXT_LENGTH:
            raise MediaError(f"this message is too long: at most {MAX_TEXT_LENGTH:,} characters, please")
        if len(upload_ids) > self.max_files:
            raise MediaError(f"too many files: at most {self.max_files} in one message, please")
        if not self.persona_id:
            await self.open()
        if COMMAND_LIKE.match(text) and (not upload_ids or self._takes_files(text)):
            await self._run_typed(text, upload_ids)
            return None
        async with self._moving:
            # Not before: while one conversation gives way to another, files may be taken back.
            if any(upload_id not in self._uploads for upload_id in upload_ids):
                raise MediaError("a picture got lost on the way: please attach it again")
            return self._send(text, upload_ids)

    def _send(self, text: str, upload_ids: tuple[str, ...]) -> str:
        uploads = [self._uploads[upload_id] for upload_id in upload_ids]
        pictures = tuple(
            ShownPicture(upload.name, f"/sent/{upload_id}")
            for upload_id, upload in zip(upload_ids, uploads, strict=True)
        )
        question = self.transcript.add(Bubble(Speaker.USER, text, pictures))
        exchange = Exchange(self.persona_id, self.transcript, question, upload_ids)
        message = IncomingMessage(
            room=self.room,
            kind=ChatKind.DIRECT,
            message_id=question.id,
            author=self.author,
            text=text,
            files=tuple(map(_file_of, uploads)),
        )
        self._exchanges.append(exchange)
        exchange.task = asyncio.create_task(self._answer(exchange, message), name=f"web reply to {question.id}")
        # A callback, since a task that is cancelled before its first step never reaches its own `finally`.
        exchange.task.add_done_callback(lambda task: self._finish(exchange, task))
        self._show_activity()
        return message.message_id

    async def _answer(self, exchange: Exchange, message: IncomingMessage) -> None:
        try:
            await self._handler.handle(message, PageChannel(exchange, self._show_activity))
        finally:
            # Also where it was stopped: the uploaded files go, and what was stored stays.
            await self._settle(exchange)

    async def _settle(self, exchange: Exchange) -> None:
        """Show the stored pictures in place of the uploaded ones, which need not be kept then."""
        if not exchange.upload_ids or exchange.persona_id != self.persona_id:
            return
        question = exchange.question
        pictures = _names_of(question.pictures)
        try:
            turns = await self._browser.history(self.room)
        except BotError:
            log.warning("cannot read a conversation's pictures back", exc_info=True)
        else:
            for turn in reversed(turns):
                is_same = turn.role is Role.USER and turn.text == question.text
                if is_same and len(turn.attachments) == len(pictures):
                    pictures = stored_pictures(turn)
                    break
        exchange.transcript.set_pictures(question.id, pictures)

    def _finish(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        self._exchanges.remove(exchange)
        for upload_id in exchange.upload_ids:
            self._uploads.pop(upload_id, None)
        question = exchange.question
        if question.pictures and exchange.transcript[question.id].pictures == question.pictures:
            exchange.transcript.set_pictures(question.id, _names_of(question.pictures))
        if exchange.is_stopped and not exchange.has_answer:
            exchange.transcript.add(Bubble(Speaker.NOTICE, "Stopped before an answer came."))
        if not task.cancelled() and (error := task.exception()):
            log.error("the message handler failed", exc_info=error)
            exchange.transcript.add(Bubble(Speaker.NOTICE, "Something went wrong. The log of the bot says what."))
        if exchange.persona_id != self.persona_id:
            # Nobody looks at it: it is read afresh from the store when somebody does.
            self._transcripts.pop(exchange.persona_id, None)
        elif exchange.has_answer:
            self._announce(exchange)
        self._show_activity()
        self._rest_if_idle()

    def _announce(self, exchange: Exchange) -> None:
        text = "\n\n".join(exchange.transcript[bubble_id].text for bubble_id in exchange.reply_ids)
        for view in tuple(self._views):
            view.show_finished(text)

    # Stopping

    def stop(self) -> None:
        """Stop the answer that is being written, the oldest; messages after it are still answered."""
        for exchange in self._running()[:1]:
            if exchange.task:
                exchange.is_stopped = True
                exchange.task.cancel()
                return
        for task in tuple(self._looking)[:1]:
            task.cancel()

    async def aclose(self) -> None:
        """Stop everything and wait until what was shown is stored."""
        await self._end(self._exchanges)

    async def _end(self, exchanges: list[Exchange]) -> None:
        tasks = [exchange.task for exchange in exchanges if exchange.task] + list(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _running(self) -> list[Exchange]:
        return [exchange for exchange in self._exchanges if exchange.persona_id == self.persona_id]

    # Commands

    async def run_choice(self, offer: Offer, value: str) -> None:
        """Run the command that a notice offered, with the picked value."""
        command = self._commands.find(*offer.path)
        if command:
            await self._run(command, {offer.argument: value})

    def _takes_files(self, text: str) -> bool:
        match = self._commands.match(text)
        return match is not None and (match[0].takes_picture or match[0].takes_file)

    async def _run_typed(self, text: str, upload_ids: tuple[str, ...] = ()) -> None:
        match = self._commands.match(text)
        if match is None:
            self._note(f"There is no command {text.split()[0]}. /help lists what there is.")
            return
        uploads = [upload for upload_id in upload_ids if (upload := self._uploads.get(upload_id))]
        if len(uploads) < len(upload_ids):
            raise MediaError("a picture got lost on the way: please attach it again")
        if uploads:
            pictures = tuple(
                ShownPicture(upload.name, f"/sent/{upload_id}" if picture_type(upload.data) else None)
                for upload_id, upload in zip(upload_ids, uploads, strict=True)
            )
            self.transcript.add(Bubble(Speaker.USER, text, pictures))
        await self._run(*match, files=tuple(map(_file_of, uploads)))

    async def _run(self, command: Command, arguments: dict[str, str], *, files: tuple[IncomingFile, ...] = ()) -> None:
        missing = [
            argument.name for argument in command.arguments if argument.is_required and argument.name not in arguments
        ]
        if missing:
            self._note(f"/{' '.join(command.path)} needs {' and '.join(missing)}.")
            return
        call = CommandCall(self.room, ChatKind.DIRECT, self.author, arguments, files, channel=UnseenChannel())
        if command.only_looks:
            await self._look(command, call)
            return
        try:
            reply = await command.run(call)
        except BotError as error:
            self._note(str(error))
            return
        async with self._moving:
            # The command may have changed any conversation, or chosen another one.
            self._transcripts = {exchange.persona_id: exchange.transcript for exchange in self._exchanges}
            await self._show_chosen()
        if not reply.is_silent:
            self._note_answer(reply, self.transcript)
        self._refresh_views()

    async def _look(self, command: Command, call: CommandCall) -> None:
        """Run a command that changes nothing. Where it takes its time, others can be written meanwhile."""
        task = asyncio.create_task(self._note_look(command, call, self.transcript), name=f"web {command.path}")
        self._looking.add(task)
        task.add_done_callback(self._end_look)
        await asyncio.wait({task}, timeout=PROMPT_ANSWER_S)
        self._show_activity()

    async def _note_look(self, command: Command, call: CommandCall, transcript: Transcript) -> None:
        try:
            self._note_answer(await command.run(call), transcript)
        except BotError as error:
            self._note(str(error), transcript)

    def _end_look(self, task: asyncio.Task[None]) -> None:
        self._looking.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a command failed", exc_info=error)
            self._note("Something went wrong. The log of the bot says what.")
        self._show_activity()
        self._rest_if_idle()

    def _note_answer(self, reply: CommandReply, transcript: Transcript) -> None:
        offer = Offer(reply.choice_path, reply.choice_argument, reply.choices) if reply.choices else None
        last = next((bubble.text for bubble in reversed(tuple(transcript))), None)
        if offer or reply.pictures or reply.text != last:
            # A command that begins a conversation answers with the greeting, which stands there already.
            pictures = tuple(map(self._keep_drawn, reply.pictures))
            transcript.add(Bubble(Speaker.NOTICE, reply.text, pictures, offer))

    def _keep_drawn(self, picture: ReplyPicture) -> ShownPicture:
        picture_id = uuid4().hex
        self._drawn[picture_id] = picture
        for old in list(self._drawn)[:-MAX_DRAWN]:
            del self._drawn[old]
        return ShownPicture(picture.alt or picture.name, f"/drawn/{picture_id}")

    # Telling the tabs

    def _note(self, text: str, transcript: Transcript | None = None) -> None:
        shown = transcript or self.transcript
        if not any(bubble.text == text for bubble in tuple(shown)[-1:]):
            shown.add(Bubble(Speaker.NOTICE, text))

    def _show_bubble(self, persona_id: str, bubble: Bubble) -> None:
        if persona_id == self.persona_id:
            for view in tuple(self._views):
                view.show_bubble(bubble)

    def _show_activity(self) -> None:
        for view in tuple(self._views):
            view.show_activity()

    def _refresh_views(self) -> None:
        for view in tuple(self._views):
            view.refresh()


def _file_of(upload: Upload) -> IncomingFile:
    return IncomingFile(upload.name, upload.mime, len(upload.data), upload.read)


def _names_of(pictures: tuple[ShownPicture, ...]) -> tuple[ShownPicture, ...]:
    return tuple(ShownPicture(picture.name, None) for picture in pictures)


class Sessions:
    """All browsers that are or were here."""

    def __init__(
        self,
        handler: MessageHandler,
        *,
        browser: ConversationBrowser,
        commands: CommandTable,
        max_files: int = MAX_FILES,
    ) -> None:
        self._handler = handler
        self._browser = browser
        self._commands = commands
        self._max_files = max_files
        self._by_id: dict[str, Session] = {}

    def of(self, session_id: str) -> Session:
        """The session of a browser's cookie."""
        if session_id not in self._by_id:
            self._forget_old()
            self._by_id[session_id] = Session(
                session_id,
                self._handler,
                browser=self._browser,
                commands=self._commands,
                max_files=self._max_files,
            )
        return self._by_id[session_id]

    async def aclose(self) -> None:
        """Stop all replies; each handler stores what was shown of its reply."""
        await asyncio.gather(*(session.aclose() for session in self._by_id.values()))
        self._by_id.clear()

    def _forget_old(self) -> None:
        oldest_s = time.monotonic() - KEEP_IDLE_S
        self._by_id = {
            key: session
            for key, session in self._by_id.items()
            if not session.is_idle or session.last_used_s > oldest_s
        }
