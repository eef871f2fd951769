"""The straight line: a message comes in, a persona's reply goes out, and both are remembered.

Owns the order of the steps, who waits for whom, and what people are told when a step fails. Knows neither platforms
nor SQL nor torch: the engine, the store and the personas are handed in.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from bot.access import is_meant_for
from bot.adapters.base import ConversationBrowser, MessageHandler, ReplyChannel
from bot.errors import BotError, CommandError, DeliveryError, MediaError, PersonaError, StoreError
from bot.media.pictures import PictureLimits, PictureReader
from bot.personas.prompt import build_request, fill_macros, speaker_label
from bot.queues import KeyedLocks, KeyedQueues
from bot.replies import Pacing, ReplyStream, send_text
from bot.types import (
    Attachment,
    Author,
    ChatKind,
    ConversationKey,
    IncomingFile,
    IncomingMessage,
    NewTurn,
    PersonaCard,
    ReplyOrigin,
    Room,
    StoredTurn,
)
from engine.errors import AskerBusy, EngineBusy, EngineClosing, EngineError, PromptTooLong
from engine.persona import Persona
from engine.types import Asker, GenerationRequest, Image, ReplyEngine, Role, SamplingSettings, Turn

logger = logging.getLogger(__name__)

NO_PERSONA = "There is no persona here to talk to yet. Whoever runs me can add one with “commedia persona new”."
BROKEN = "Something went wrong on my side. It is in my log; please try again, or tell whoever runs me."
NOT_KEPT = "My memory has a problem, so I could not keep this. Please tell whoever runs me: my log says what to do."
NOT_GENERATED = "I could not think of an answer: my engine has a problem. Please try again in a moment."
TOO_BUSY = "Too many people are talking to me right now. Please try again in a minute."
ASKED_ENOUGH = "I am still answering what you asked before. Please wait for one of the answers, then send this again."
RESTARTING = "I am being restarted. Please send this again in a minute."
NO_REPLY = "I have not answered anything here yet: ask me something first."
NOT_MY_REPLY = "I do not remember that message as an answer of mine. Reply to one of my answers, or to none."
NOT_AN_ANSWER = "That was no answer to anything: there was only me."
TOO_LONG = "That is more than I can read at once. Please send a shorter message."

MAX_QUOTE_LENGTH = 300
# Shorter words, such as "no", occur inside of others by chance.
MIN_TELLING_LENGTH = 30
# As far back as replies are looked for that somebody asks about.
MAX_TURNS_LOOKED_THROUGH = 1000


class PersonaSource(Protocol):
    """The personas that can be talked to: `bot.personas.library.PersonaLibrary`."""

    def all(self) -> tuple[Persona, ...]:
        """All personas, by name."""

    def get(self, persona_id: str) -> Persona:
        """The persona with this id. Raises `PersonaError`."""

    def find(self, text: str) -> Persona | None:
        """The persona that somebody means by `text`."""

    def card(self, persona: Persona) -> PersonaCard:
        """What people see of `persona`."""


class ConversationStore(Protocol):
    """What was said: `bot.store.repositories.Conversations`. Raises `StoreError`."""

    async def append(self, key: ConversationKey, turn: NewTurn) -> StoredTurn | None:
        """Remember `turn`, for good when this returns; `None` where one of its messages was seen already.

        Once begun it ends, also where the caller is cancelled.
        """

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        """The newest turns since the last reset, oldest first."""

    async def reset(self, key: ConversationKey) -> int:
        """Forget the conversation, and say how many turns it had."""

    async def speaker(self, room: Room, message_id: str) -> str | None:
        """The id of the persona that sent that message."""

    async def turn_of(self, room: Room, message_id: str) -> tuple[ConversationKey, int] | None:
        """The turn that came in that message, and its conversation."""

    async def origin_of(self, key: ConversationKey, turn_id: int) -> ReplyOrigin | None:
        """What that reply was made from, where that was noted."""

    async def has_attachment(self, room: Room, digest: str) -> bool:
        """Whether that picture was shown in `room`."""

    async def attachments_of(self, room: Room, message_id: str) -> tuple[Attachment, ...]:
        """The pictures that came with that message."""


class RoomStore(Protocol):
    """Which persona a room chose: `bot.store.repositories.Rooms`. Raises `StoreError`."""

    async def persona_id(self, room: Room) -> str | None:
        """The persona that was chosen, if any was."""

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let that persona answer in `room`."""


class PictureStore(Protocol):
    """Stored pictures: `bot.store.attachments.AttachmentStore`. Raises `StoreError`."""

    async def put(self, data: bytes, *, mime: str, width: int, height: int) -> Attachment:
        """Keep a picture."""

    async def read(self, digest: str) -> bytes:
        """A picture that was kept."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How the bot converses. `default_persona=None` is the first by name."""

    default_persona: str | None = None
    max_history_turns: int = 24
    max_history_pictures: int = 8
    max_waiting_messages: int = 8
    max_pictures: int = 4
    picture_limits: PictureLimits = field(default_factory=PictureLimits)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    pacing: Pacing = field(default_factory=Pacing)


@dataclass(frozen=True, slots=True)
class AskedReply:
    """A reply, and the request that it answers, put together anew: of the persona as it is today."""

    request: GenerationRequest
    reply: str
    has_persona_changed: bool


class _QueueFull(BotError):
    """More messages wait in one conversation than may."""


class _Closing(BotError):
    """The bot is about to end, and takes nothing new."""


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A message that is to be answered by `persona`. `turn=None` is a call without words: it is greeted."""

    key: ConversationKey
    persona: Persona
    message: IncomingMessage
    turn: StoredTurn | None
    notices: tuple[str, ...] = ()


class ChatService(MessageHandler, ConversationBrowser):
    """Answers messages, and shows conversations: a `MessageHandler` and a `ConversationBrowser`.

    A message is remembered as soon as it has arrived, in the order of arrival in its room; then it waits for its turn
    in its conversation. So a crash loses no message, and one slow reply delays only its own conversation.
    """

    def __init__(
        self,
        engine: ReplyEngine,
        library: PersonaSource,
        conversations: ConversationStore,
        rooms: RoomStore,
        attachments: PictureStore,
        *,
        options: ChatOptions | None = None,
        on_pictures: Callable[[Sequence[Attachment]], None] | None = None,
    ) -> None:
        """`on_pictures` hears of pictures that were shown, once their message is answered."""
        self._engine = engine
        self._library = library
        self._conversations = conversations
        self._rooms = rooms
        self._attachments = attachments
        self._options = options or ChatOptions()
        self._on_pictures = on_pictures
        self._pictures = PictureReader(self._options.picture_limits)
        self._arrivals: KeyedLocks[Room] = KeyedLocks()
        self._replies: KeyedQueues[ConversationKey] = KeyedQueues(max_inside=self._options.max_waiting_messages)
        self._is_closing = False
        self._num_awaited = 0
        self._nothing_to_do = asyncio.Event()
        self._nothing_to_do.set()

    # --- answering

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        """Answer `message` in `channel`, if it is meant for the bot. Never raises but for cancellation."""
        stream = ReplyStream(channel, reply_to=_reply_to(message), pacing=self._options.pacing)
        is_late = self._is_closing
        if not is_late:
            self._num_awaited += 1
            self._nothing_to_do.clear()
        try:
            async with self._arrivals.hold(message.room):
                accepted = await self._accept(message, channel, is_late=is_late)
            # No await in between: messages join their conversation's queue in the order of arrival.
            if accepted is not None:
                await self._replies.run(accepted.key, partial(self._answer, accepted, channel, stream))
        except (BotError, EngineError) as error:
            _log_expected(error, message)
            await self._tell(channel, _explain(error), message, instead_of=stream.notice_id)
        except Exception:
            logger.exception("message %s in %s could not be answered", message.message_id, message.room)
            await self._tell(channel, BROKEN, message, instead_of=stream.notice_id)
        finally:
            self._num_awaited -= not is_late
            if not self._num_awaited:
                self._nothing_to_do.set()

    async def drain(self, drain_s: float) -> bool:
        """Take no new messages, give those that came before `drain_s` seconds, and say whether all were answered."""
        self._is_closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nothing_to_do.wait(), drain_s)
        return self._nothing_to_do.is_set()

    async def _tell(
        self, channel: ReplyChannel, text: str, message: IncomingMessage, *, instead_of: str | None = None
    ) -> None:
        try:
            await send_text(
                channel, text, reply_to=_reply_to(message), pacing=self._options.pacing, instead_of=instead_of
            )
        except Exception:
            logger.exception("nobody in %s could be told: %s", message.room, text)

    async def _accept(self, message: IncomingMessage, channel: ReplyChannel, *, is_late: bool) -> _Accepted | None:
        """Decide who answers, and remember the message. `None` where nobody answers, or it was answered before.

        One that `is_late` came after the bot was told to end.
        """
        addressee = await self._addressee(message)
        if addressee is None:
            return None
        persona, notices = addressee
        key = ConversationKey(message.room, persona.id)
        if is_late:
            raise _Closing(RESTARTING)
        if self._replies.is_full(key):
            raise _QueueFull(
                f"{self._options.max_waiting_messages} messages wait for {persona.name} already. "
                "Please wait for the answers, then send it again."
            )
        if notices:
            await self._rooms.choose(message.room, persona.id)
        pictures, refusals = await self._pictures_for(message, channel)
        text = await self._text_with_quote(key, message)
        if not text and not pictures:
            if refusals:
                raise MediaError("\n".join(refusals))
            return _Accepted(key, persona, message, None, notices)
        turn = NewTurn(Role.USER, text, message.author, (message.message_id,), pictures)
        stored = await self._conversations.append(key, turn)
        if stored is None:
            return None
        return _Accepted(key, persona, message, stored, (*notices, *refusals))

    async def _answer(self, accepted: _Accepted, channel: ReplyChannel, stream: ReplyStream) -> None:
        for notice in accepted.notices:
            await self._tell(channel, notice, accepted.message)
        if accepted.turn is None:
            await self._greet(accepted, channel)
            return
        told = await self._told(accepted.key, accepted.turn)
        request = await self._request(accepted.key, accepted.persona, accepted.message.kind, told)
        origin = ReplyOrigin(accepted.turn.id, accepted.persona.digest())
        try:
            await stream.deliver(self._engine.generate(request))
        finally:
            # Also what was broken off: people have seen it.
            await self._remember(accepted.key, stream.text_to_remember, stream.message_ids, origin=origin)
            if accepted.turn.attachments and self._on_pictures is not None:
                self._on_pictures(accepted.turn.attachments)

    async def _greet(self, accepted: _Accepted, channel: ReplyChannel) -> None:
        text = _greeting(accepted.persona, accepted.message.author.display_name)
        reply_to = _reply_to(accepted.message)
        message_ids = await send_text(channel, text, reply_to=reply_to, pacing=self._options.pacing)
        await self._remember(accepted.key, text, message_ids, origin=_unasked(accepted.persona))

    async def _remember(
        self, key: ConversationKey, text: str, message_ids: tuple[str, ...], *, origin: ReplyOrigin | None = None
    ) -> None:
        if text:
            await self._conversations.append(key, NewTurn(Role.ASSISTANT, text, None, message_ids, origin=origin))

    # --- who answers

    async def _addressee(self, message: IncomingMessage) -> tuple[Persona, tuple[str, ...]] | None:
        """The persona that answers `message`, and what people should know about the choice."""
        if message.author.is_bot:
            return None
        replied_to = message.reply_to
        is_reply = replied_to is not None and replied_to.is_from_bot
        if replied_to is not None and is_reply:
            speaker = self._persona(await self._conversations.speaker(message.room, replied_to.message_id))
            if speaker is not None:
                if is_meant_for(message, speaker, is_reply_to_persona=True):
                    return speaker, ()
                is_reply = False
        persona, notices = await self._current(message.room)
        if persona is None:
            if message.kind is ChatKind.DIRECT or message.mentions_bot or is_reply:
                raise PersonaError(NO_PERSONA)
            return None
        return (persona, notices) if is_meant_for(message, persona, is_reply_to_persona=is_reply) else None

    async def _current(self, room: Room) -> tuple[Persona | None, tuple[str, ...]]:
        """The persona that answers in `room`, and a notice where it had to be another than the chosen one."""
        chosen_id = await self._rooms.persona_id(room)
        chosen, default = self._persona(chosen_id), self._default()
        if chosen is not None or chosen_id is None or default is None:
            return chosen or default, ()
        return default, (f"“{chosen_id}” is not here any more: {default.name} answers from now on.",)

    def _persona(self, persona_id: str | None) -> Persona | None:
        if persona_id is None:
            return None
        try:
            return self._library.get(persona_id)
        except PersonaError:
            return None

    def _default(self) -> Persona | None:
        named = self._persona(self._options.default_persona)
        return named or next(iter(self._library.all()), None)

    # --- what is said

    async def _pictures_for(
        self, message: IncomingMessage, channel: ReplyChannel
    ) -> tuple[tuple[Attachment, ...], list[str]]:
        """The pictures of `message`, or of the message that it replies to, and why others were refused.

        Raises `MediaError` where all of its own files are refused: its words would be about something unseen.
        """
        replied_to = message.reply_to
        if message.files:
            pictures, refusals = await self._load(message.files, channel)
            if not pictures:
                raise MediaError("\n".join(refusals))
            return pictures, refusals
        if replied_to is None:
            return (), []
        known = await self._conversations.attachments_of(message.room, replied_to.message_id)
        if known or not replied_to.files:
            return known[: self._options.max_pictures], []
        return await self._load(replied_to.files, channel)

    async def _load(
        self, files: Sequence[IncomingFile], channel: ReplyChannel
    ) -> tuple[tuple[Attachment, ...], list[str]]:
        max_pictures = self._options.max_pictures
        with contextlib.suppress(DeliveryError):
            await channel.show_typing()
        loaded = await asyncio.gather(*(self._load_one(file) for file in files[:max_pictures]))
        pictures = tuple(found for found in loaded if isinstance(found, Attachment))
        refusals = [str(found) for found in loaded if isinstance(found, MediaError)]
        if len(files) > max_pictures:
            refusals.append(
                f"I look at {max_pictures} pictures at a time, and left out the last {len(files) - max_pictures}."
            )
        return pictures, refusals

    async def _load_one(self, file: IncomingFile) -> Attachment | MediaError:
        try:
            picture = await self._pictures.read(file)
        except MediaError as refusal:
            return refusal
        return await self._attachments.put(picture.data, mime=picture.mime, width=picture.width, height=picture.height)

    async def _text_with_quote(self, key: ConversationKey, message: IncomingMessage) -> str:
        """What was said, after the words it replies to where the persona does not remember them."""
        text, replied_to = message.text.strip(), message.reply_to
        quoted = " ".join(replied_to.text.split()) if replied_to else ""
        if replied_to is None or not quoted or await self._remembers(key, quoted):
            return text
        if len(quoted) > MAX_QUOTE_LENGTH:
            quoted = f"{quoted[:MAX_QUOTE_LENGTH]}…"
        return f"(replying to {speaker_label(replied_to.author.display_name)}: “{quoted}”) {text}".rstrip()

    async def _remembers(self, key: ConversationKey, words: str) -> bool:
        turns = await self._conversations.recent(key, max_turns=self._options.max_history_turns)
        remembered = (" ".join(turn.text.split()) for turn in turns)
        # A part is enough, for a long reply comes in several messages.
        return any(words == text or (len(words) >= MIN_TELLING_LENGTH and words in text) for text in remembered)

    async def _told(self, key: ConversationKey, current: StoredTurn) -> list[StoredTurn]:
        """What a reply to `current`, which comes last, is made from.

        Later messages wait for their own replies; replies that came after this message answer earlier ones.
        """
        recent = await self._conversations.recent(key, max_turns=self._options.max_history_turns)
        return [*(turn for turn in recent if turn.id < current.id or turn.role is Role.ASSISTANT), current]

    async def _request(
        self, key: ConversationKey, persona: Persona, kind: ChatKind, told: Sequence[StoredTurn]
    ) -> GenerationRequest:
        """The request for a reply to the last of `told`."""
        author = told[-1].author
        return build_request(
            persona,
            await self._turns(kind, told),
            sampling=self._options.sampling,
            user_name=author.display_name if author is not None else None,
            is_group=kind is ChatKind.GROUP,
            asker=_asker(key, author) if author is not None else None,
        )

    async def _turns(self, kind: ChatKind, told: Sequence[StoredTurn]) -> list[Turn]:
        """The conversation as the engine takes it; the last turn is the one to answer."""
        turns: list[Turn] = []
        room_left = max(self._options.max_history_pictures, len(told[-1].attachments))
        for stored in reversed(told):
            images = await self._images(stored.attachments[:room_left], is_needed=stored is told[-1])
            room_left -= len(images)
            turns.append(Turn(stored.role, _spoken(stored, kind), images))
        return turns[::-1]

    async def _images(self, attachments: Sequence[Attachment], *, is_needed: bool) -> tuple[Image, ...]:
        images: list[Image] = []
        for attachment in attachments:
            try:
                images.append(Image(attachment.digest, await self._attachments.read(attachment.digest)))
            except StoreError as error:
                if is_needed:
                    raise
                logger.warning("an earlier picture is left out of the conversation: %s", error)
        return tuple(images)

    # --- showing conversations

    def personas(self) -> tuple[PersonaCard, ...]:
        """All personas that can be talked to, by name."""
        return tuple(self._library.card(persona) for persona in self._library.all())

    def find_persona(self, text: str) -> Persona:
        """The persona that somebody means by an id, a name or its beginning. Raises `PersonaError`."""
        persona = self._library.find(text.strip())
        if persona is None:
            names = ", ".join(persona.name for persona in self._library.all())
            known = f"I do not know who “{speaker_label(text)}” is. You can talk to: {names}."
            raise PersonaError(known if names else NO_PERSONA)
        return persona

    async def chosen(self, room: Room) -> str:
        """The id of the persona that answers in `room`. Raises `PersonaError` where there is none at all."""
        persona, _ = await self._current(room)
        if persona is None:
            raise PersonaError(NO_PERSONA)
        return persona.id

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let another persona answer in `room`; its earlier conversation there goes on."""
        await self._rooms.choose(room, self._library.get(persona_id).id)

    async def history(self, room: Room, *, max_turns: int = 200) -> list[StoredTurn]:
        """The conversation with the chosen persona, oldest first. A new one begins with the persona's greeting."""
        await self.greet_once(room)
        return await self._conversations.recent(await self._key(room), max_turns=max_turns)

    async def greet_once(self, room: Room, *, user_name: str | None = None) -> str | None:
        """Begin the conversation with the chosen persona's greeting; `None` where it has begun before."""
        async with self._arrivals.hold(room):
            key = await self._key(room)
            if await self._conversations.recent(key, max_turns=1):
                return None
            persona = self._library.get(key.persona_id)
            text = _greeting(persona, user_name)
            await self._remember(key, text, (), origin=_unasked(persona))
            return text

    async def start_over(self, room: Room) -> None:
        """Forget the conversation with the chosen persona in `room`, and stop what it was about to say."""
        async with self._arrivals.hold(room):
            key = await self._key(room)
            await self._replies.empty(key)
            await self._conversations.reset(key)

    async def asked(self, room: Room, kind: ChatKind, *, message_id: str | None = None) -> AskedReply:
        """The reply in that message of `room`, or the last one, with its request. Raises `CommandError`."""
        key, reply, turns = await self._find_reply(room, message_id)
        origin = await self._conversations.origin_of(key, reply.id)
        question = _question_of(reply, origin, turns)
        persona = self._persona(key.persona_id)
        if persona is None:
            raise CommandError(f"“{key.persona_id}” is not here any more, so I cannot say why it said that.")
        earlier = [
            turn for turn in turns if turn.id < question.id or (turn.role is Role.ASSISTANT and turn.id < reply.id)
        ]
        told = [*earlier[-self._options.max_history_turns :], question]
        has_changed = origin is not None and origin.persona_digest != persona.digest()
        return AskedReply(await self._request(key, persona, kind, told), reply.text, has_changed)

    async def _find_reply(
        self, room: Room, message_id: str | None
    ) -> tuple[ConversationKey, StoredTurn, list[StoredTurn]]:
        """A reply among the turns of its conversation."""
        found = await self._conversations.turn_of(room, message_id) if message_id is not None else None
        if message_id is not None and found is None:
            raise CommandError(NOT_MY_REPLY)
        key, turn_id = found or (await self._key(room), None)
        turns = await self._conversations.recent(key, max_turns=MAX_TURNS_LOOKED_THROUGH)
        is_wanted = (turn for turn in reversed(turns) if turn.role is Role.ASSISTANT and turn_id in (None, turn.id))
        reply = next(is_wanted, None)
        if reply is None:
            raise CommandError(NO_REPLY if message_id is None else NOT_MY_REPLY)
        return key, reply, turns

    async def picture(self, room: Room, digest: str) -> bytes:
        """A picture that was shown in `room`; pictures of other rooms are refused."""
        if not await self._conversations.has_attachment(room, digest):
            raise MediaError("There is no such picture in this conversation.")
        return await self._attachments.read(digest)

    async def _key(self, room: Room) -> ConversationKey:
        return ConversationKey(room, await self.chosen(room))


def _reply_to(message: IncomingMessage) -> str | None:
    """The message that an answer quotes: in a group one has to see who is meant."""
    return message.message_id if message.kind is ChatKind.GROUP else None


def _asker(key: ConversationKey, author: Author) -> Asker:
    """For whom the engine makes a reply. A person is the same in all rooms of a platform."""
    room = "/".join(filter(None, (key.room.platform, key.room.chat_id, key.room.thread_id)))
    return Asker(user=f"{author.platform}/{author.user_id}", room=room, conversation=f"{room}/{key.persona_id}")


def _question_of(reply: StoredTurn, origin: ReplyOrigin | None, turns: Sequence[StoredTurn]) -> StoredTurn:
    """The turn that `reply` answers. Of replies that are older than their notes it is the last one before."""
    before = [turn for turn in turns if turn.role is Role.USER and turn.id < reply.id]
    if origin is not None:
        before = [turn for turn in before if turn.id == origin.asked_turn_id]
    if not before:
        raise CommandError(NOT_AN_ANSWER)
    return before[-1]


def _unasked(persona: Persona) -> ReplyOrigin:
    """The origin of what `persona` says by itself."""
    return ReplyOrigin(None, persona.digest())


def _greeting(persona: Persona, user_name: str | None) -> str:
    return fill_macros(persona.greetings[0], persona, user_name)


def _spoken(turn: StoredTurn, kind: ChatKind) -> str:
    if kind is ChatKind.GROUP and turn.role is Role.USER and turn.author is not None:
        return f"{speaker_label(turn.author.display_name)}: {turn.text}".rstrip()
    return turn.text


def _explain(error: BotError | EngineError) -> str:
    """What people are told. Errors for admins stay in the log."""
    if isinstance(error, (MediaError, PersonaError, _QueueFull, _Closing)):
        return str(error)
    if isinstance(error, StoreError):
        return NOT_KEPT
    if isinstance(error, PromptTooLong):
        return TOO_LONG
    if isinstance(error, EngineClosing):
        return RESTARTING
    if isinstance(error, AskerBusy):
        return ASKED_ENOUGH
    if isinstance(error, EngineBusy):
        return TOO_BUSY
    return NOT_GENERATED if isinstance(error, EngineError) else BROKEN


def _log_expected(error: BotError | EngineError, message: IncomingMessage) -> None:
    is_senders_matter = isinstance(error, (MediaError, _QueueFull, _Closing, EngineBusy, EngineClosing, PromptTooLong))
    level = logging.INFO if is_senders_matter else logging.ERROR
    logger.log(level, "message %s in %s: %s", message.message_id, message.room, error)
