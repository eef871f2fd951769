"""What a message says to the personas of a room: who of them is meant, with which words and pictures.

Owns downloading pictures and quoting what is replied to. Remembers nothing itself, and answers nobody.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from bot.adapters.base import ReplyChannel
from bot.cast import who_answers
from bot.dialogue import Dialogue, PictureStore
from bot.errors import DeliveryError, MediaError, PersonaError
from bot.media.links import LinkedPictures
from bot.media.pictures import PictureLimits, PictureReader
from bot.personas.prompt import speaker_label
from bot.stage import Stage, Stages
from bot.types import (
    Attachment,
    ChatKind,
    ConversationKey,
    IncomingFile,
    IncomingMessage,
    Room,
    StoredTurn,
)
from engine.persona import Persona

NO_PERSONA = "There is no persona here to talk to yet. Whoever runs me can add one with “commedia persona new”."

MAX_QUOTE_LENGTH = 300
# Shorter words, such as "no", occur inside of others by chance.
MIN_TELLING_LENGTH = 30


class HeardStore(Protocol):
    """What hearing needs of `bot.store.repositories.Conversations`. Raises `StoreError`."""

    async def speaker(self, room: Room, message_id: str) -> str | None:
        """The id of the persona that sent that message."""

    async def last_reply(self, room: Room, persona_ids: Sequence[str]) -> tuple[ConversationKey, StoredTurn] | None:
        """The newest reply of one of those personas in `room`."""

    async def attachments_of(self, room: Room, message_id: str) -> tuple[Attachment, ...]:
        """The pictures that came with that message."""


@dataclass(frozen=True, slots=True)
class HearingOptions:
    """How many pictures are looked at, and on which clock quiet hours are: `None` is the machine's."""

    max_pictures: int = 4
    picture_limits: PictureLimits = field(default_factory=PictureLimits)
    timezone: tzinfo | None = None


class Hearing:
    """Takes messages in. Without `links`, pictures behind links are not fetched."""

    def __init__(
        self,
        stages: Stages,
        dialogue: Dialogue,
        conversations: HeardStore,
        attachments: PictureStore,
        *,
        options: HearingOptions,
        links: LinkedPictures | None,
        roll: Callable[[], float],
    ) -> None:
        self._stages = stages
        self._dialogue = dialogue
        self._conversations = conversations
        self._attachments = attachments
        self._options = options
        self._links = links
        self._roll = roll
        self._pictures = PictureReader(options.picture_limits)

    async def addressees(self, message: IncomingMessage) -> tuple[Stage | None, tuple[Persona, ...]]:
        """The room, and the personas that answer `message` there."""
        stage, replied_to = await self._stages.of(message.room), message.reply_to
        is_reply = replied_to is not None and replied_to.is_from_bot
        if stage is None:
            if message.kind is ChatKind.DIRECT or message.mentions_bot or is_reply or message.is_summons:
                raise PersonaError(NO_PERSONA)
            return None, ()
        spoke = None
        if replied_to is not None and is_reply:
            spoke = self._stages.persona(await self._conversations.speaker(message.room, replied_to.message_id))
        personas = who_answers(
            message,
            stage.cast,
            main=stage.main,
            replied_to=spoke,
            settings=stage.settings,
            now=self.now(),
            roll=self._roll,
            last=await self._spoke_last(stage) if message.kind is ChatKind.DIRECT else None,
        )
        return stage, personas

    async def _spoke_last(self, stage: Stage) -> Persona | None:
        """Of several personas, the one that somebody is talking with."""
        last = await self._conversations.last_reply(stage.room, stage.persona_ids) if stage.is_shared else None
        return self._stages.persona(last[0].persona_id) if last is not None else None

    def now(self) -> datetime:
        """The time on the clock of quiet hours."""
        return datetime.now(UTC).astimezone(self._options.timezone)

    async def pictures(
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
        if self._links is not None and (linked := self._links.files(message.text)):
            return await self._load(linked, channel)
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

    async def text(self, stage: Stage, persona: Persona, message: IncomingMessage) -> str:
        """What was said, after the words it replies to where the persona does not remember them, or they are all."""
        text, replied_to = message.text.strip(), message.reply_to
        quoted = " ".join(replied_to.text.split()) if replied_to else ""
        if replied_to is None or not quoted:
            return text
        if not message.is_summons and await self._remembers(stage, persona, quoted):
            return text
        if len(quoted) > MAX_QUOTE_LENGTH:
            quoted = f"{quoted[:MAX_QUOTE_LENGTH]}…"
        return f"(replying to {speaker_label(replied_to.author.display_name)}: “{quoted}”) {text}".rstrip()

    async def _remembers(self, stage: Stage, persona: Persona, words: str) -> bool:
        heard = await self._dialogue.heard(stage, persona)
        remembered = (" ".join(spoken.turn.text.split()) for spoken in heard)
        # A part is enough, for a long reply comes in several messages.
        return any(words == text or (len(words) >= MIN_TELLING_LENGTH and words in text) for text in remembered)
