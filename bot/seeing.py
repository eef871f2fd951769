"""What people ask about pictures and replies: /describe, /find, /translate and /why.

Owns which picture or message is meant, and what is said about what the engine found. Uses nothing but the conversation
in which it is asked. Knows neither platforms nor weights.
"""

import asyncio
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Protocol

from bot.browsing import AskedReply
from bot.commands import CommandCall, CommandReply, ReplyPicture
from bot.errors import CommandError, StoreError
from bot.languages import language_named
from bot.media import heatmap
from bot.media.pictures import PictureLimits, PictureReader
from bot.personas.prompt import speaker_label
from bot.personas.telling import describe_context
from bot.picture_index import FoundPicture
from bot.types import Attachment, ChatKind, ConversationKey, IncomingFile, PictureShown, Room, StoredTurn
from engine.errors import NotAvailable
from engine.persona import Identity, Persona
from engine.types import Explanation, FacetShare, Image, SeeingEngine, Sight, Translation

logger = logging.getLogger(__name__)

NO_PICTURE = "There is no picture here yet. Show me one, then ask again."
NO_PICTURE_THERE = "That message has no picture that I can look at."
NO_PICTURES = "Nobody has shown me a picture in this conversation yet."
NOTHING_TO_FIND = "Say what to look for, such as: /find a dog on a beach"
NOTHING_FITS = "I found no picture here that fits “{words}”."
ONE_FOUND = "This one, I think. {shown}."
SOME_FOUND = "These may be it. {shown}."
DOUBT = "I am not sure, but it may be this one. {shown}."
NO_TEXT = "There is nothing to translate: reply to a message, or put the text behind the command."
UNSURE_TRANSLATION = (
    "The model that runs me was not made for {language}, so do not rely on this. A larger one does it better "
    "(docs/models.md).\n\n{text}"
)
NOT_TRANSLATED = (
    "I tried to say it in {language}, but the model that runs me only gave the text back: it was not made for that. "
    "A larger one does it better (docs/models.md)."
)
PERSONA_HAS_CHANGED = "The persona has been edited since, so this is about how it is now."
BUSY = "I am still busy with what was asked here before. Please wait for that, then ask again."
WHY_TITLE = "Why {name} said: {reply}"

# How people begin: /translate into German …
INTO = frozenset({"to", "into", "in"})
# Italian, Norwegian, Hebrew, Hindi, Indonesian; before other words they are English.
CODES_THAT_ARE_WORDS = frozenset({"it", "no", "he", "hi", "id"})
# The engine's queue is short: what one room asks must not fill it.
MAX_AT_WORK_IN_A_ROOM = 3
# What `/persona show` tells. The rest is between the author and the model: lore is told when its keys come up.
PUBLIC_KINDS = frozenset({"name", "summary", "look", "traits", *Identity.model_fields})
MAX_PICTURES_SEARCHED = 300
MAX_PICTURES_SHOWN = 3
MAX_TURNS_SEARCHED = 50
MAX_WORDS_LENGTH = 300
MAX_QUOTE_LENGTH = 60
# Of pictures that fit, those are shown that fit about as well as the best.
SHOWN_FROM = 0.8
DOUBTED_FROM = 0.55
NEARLY_AS_GOOD = 0.8


class Conversations(Protocol):
    """What is needed of `bot.store.repositories.Conversations`. Raises `StoreError`."""

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        """The newest turns, oldest first."""

    async def pictures_of(self, key: ConversationKey, *, max_pictures: int) -> list[PictureShown]:
        """The pictures of the conversation, those shown last first."""

    async def attachments_of(self, room: Room, message_id: str) -> tuple[Attachment, ...]:
        """The pictures that came with that message."""


class PictureFiles(Protocol):
    """Stored pictures: `bot.store.attachments.AttachmentStore`. Raises `StoreError`."""

    async def read(self, digest: str) -> bytes:
        """A picture that was kept."""


class Index(Protocol):
    """`bot.picture_index.PictureIndex`."""

    async def rank(self, pictures: Sequence[PictureShown], description: str) -> list[FoundPicture]:
        """Those that may fit, the best first."""


class Chat(Protocol):
    """What is needed of `bot.chat.ChatService`. Raises `BotError`."""

    async def chosen(self, room: Room) -> str:
        """The id of the persona that answers in `room`."""

    def find_persona(self, text: str) -> Persona:
        """The persona with that id."""

    async def asked(self, room: Room, kind: ChatKind, *, message_id: str | None = None) -> AskedReply:
        """A reply with its request."""


def _one_of_few(
    command: Callable[["SeeingService", CommandCall], Awaitable[CommandReply]],
) -> Callable[["SeeingService", CommandCall], Awaitable[CommandReply]]:
    """`command`, refused where its room is busy with others."""

    @wraps(command)
    async def bounded(service: "SeeingService", call: CommandCall) -> CommandReply:
        with service.at_work(call.room):
            return await command(service, call)

    return bounded


class SeeingService:
    """Answers commands about pictures. Raises `BotError` and `EngineError`."""

    def __init__(
        self,
        engine: SeeingEngine,
        chat: Chat,
        conversations: Conversations,
        files: PictureFiles,
        index: Index,
        *,
        picture_limits: PictureLimits | None = None,
    ) -> None:
        self._engine = engine
        self._chat = chat
        self._conversations = conversations
        self._files = files
        self._index = index
        self._reader = PictureReader(picture_limits or PictureLimits())
        self._num_at_work: Counter[Room] = Counter()

    @contextmanager
    def at_work(self, room: Room) -> Iterator[None]:
        """One of the few places of `room`. Raises `CommandError` where all are taken."""
        if self._num_at_work[room] >= MAX_AT_WORK_IN_A_ROOM:
            raise CommandError(BUSY)
        self._num_at_work[room] += 1
        try:
            yield
        finally:
            self._num_at_work[room] -= 1
            if not self._num_at_work[room]:
                del self._num_at_work[room]

    # --- what a picture shows

    @_one_of_few
    async def describe(self, call: CommandCall) -> CommandReply:
        """What the picture shows that is meant, or the answer to a question about it."""
        image = await self._picture_meant(call)
        persona = await self._persona(call.room)
        question = _cut(call.arguments.get("question", ""))
        language = language_named(persona.language)
        sight: Sight = await self._engine.describe(
            image, question=question or None, language=language if language != "English" else None
        )
        return CommandReply(sight.text)

    async def _picture_meant(self, call: CommandCall) -> Image:
        """The picture that came with the command, that of the message replied to, or the conversation's last one."""
        if call.files:
            return await self._download(call.files[0])
        if call.reply_to is not None:
            known = await self._conversations.attachments_of(call.room, call.reply_to.message_id)
            if known:
                return await self._stored(known[0])
            if call.reply_to.files:
                return await self._download(call.reply_to.files[0])
            raise CommandError(NO_PICTURE_THERE)
        last = await self._conversations.pictures_of(await self._key(call.room), max_pictures=1)
        if not last:
            raise CommandError(NO_PICTURE)
        return await self._stored(last[0].attachment)

    async def _download(self, file: IncomingFile) -> Image:
        picture = await self._reader.read(file)
        return Image(hashlib.sha256(picture.data).hexdigest(), picture.data)

    async def _stored(self, attachment: Attachment) -> Image:
        return Image(attachment.digest, await self._files.read(attachment.digest))

    # --- which picture shows that

    @_one_of_few
    async def find(self, call: CommandCall) -> CommandReply:
        """The pictures of this conversation that fit the words."""
        words = _cut(call.arguments.get("words", ""))
        if not words:
            raise CommandError(NOTHING_TO_FIND)
        pictures = await self._conversations.pictures_of(await self._key(call.room), max_pictures=MAX_PICTURES_SEARCHED)
        if not pictures:
            raise CommandError(NO_PICTURES)
        found = await self._index.rank(pictures, words)
        if not found or found[0].match < DOUBTED_FROM:
            return CommandReply(NOTHING_FITS.format(words=words))
        best = found[0].match
        shown = [one for one in found if one.match >= max(SHOWN_FROM, best * NEARLY_AS_GOOD)][:MAX_PICTURES_SHOWN]
        text = DOUBT if not shown else ONE_FOUND if len(shown) == 1 else SOME_FOUND
        shown = shown or found[:1]
        return CommandReply(
            text.format(shown="; ".join(_shown_when(one.shown) for one in shown)),
            pictures=tuple(_reply_picture(one, words, number) for number, one in enumerate(shown, start=1)),
        )

    # --- in another language

    @_one_of_few
    async def translate(self, call: CommandCall) -> CommandReply:
        """A message in another language, with its picture as context."""
        language, text = _language_and_text(call.arguments)
        if language is None:
            language = language_named((await self._persona(call.room)).language) or "English"
        images: tuple[Image, ...] = ()
        if not text:
            text, attachments = await self._message_meant(call)
            images = await self._context(attachments)
        made = await self._engine.translate(text, language=language, images=images)
        return CommandReply(_translation(made, text, language))

    async def _context(self, attachments: Sequence[Attachment]) -> tuple[Image, ...]:
        """A message's picture, if it is still there: its words can be translated without."""
        try:
            return tuple([await self._stored(one) for one in attachments[:1]])
        except StoreError as error:
            logger.warning("a message is translated without its picture: %s", error)
            return ()

    async def _message_meant(self, call: CommandCall) -> tuple[str, tuple[Attachment, ...]]:
        """The text to translate: of the message replied to, or the last one with words; and its pictures."""
        replied_to = call.reply_to
        if replied_to is not None:
            if not replied_to.text.strip():
                raise CommandError(NO_TEXT)
            return replied_to.text, await self._conversations.attachments_of(call.room, replied_to.message_id)
        turns = await self._conversations.recent(await self._key(call.room), max_turns=MAX_TURNS_SEARCHED)
        last = next((turn for turn in reversed(turns) if turn.text.strip()), None)
        if last is None:
            raise CommandError(NO_TEXT)
        return last.text, last.attachments

    # --- why

    @_one_of_few
    async def why(self, call: CommandCall) -> CommandReply:
        """What a reply was made of, in words and as a picture."""
        message_id = call.reply_to.message_id if call.reply_to is not None else None
        asked = await self._chat.asked(call.room, call.kind, message_id=message_id)
        notes = [describe_context(asked.report), *([PERSONA_HAS_CHANGED] if asked.has_persona_changed else [])]
        try:
            explanation = _for_everybody(await self._engine.explain(asked.request, asked.reply))
        except NotAvailable as error:
            return CommandReply("\n\n".join([*notes, str(error)]), is_private=True)
        text = "\n\n".join([heatmap.describe(explanation), *notes])
        if not explanation.has_prefix:
            return CommandReply(text, is_private=True)
        title = WHY_TITLE.format(name=asked.request.persona.name, reply=_quote(asked.reply))
        pictures = heatmap.explained_pictures(asked.request)
        drawn = await asyncio.to_thread(heatmap.draw, explanation, pictures, title=title)
        picture = ReplyPicture("why.png", drawn, alt=heatmap.describe(explanation))
        return CommandReply(text, is_private=True, pictures=(picture,))

    # --- whose conversation

    async def _key(self, room: Room) -> ConversationKey:
        return ConversationKey(room, await self._chat.chosen(room))

    async def _persona(self, room: Room) -> Persona:
        return self._chat.find_persona(await self._chat.chosen(room))


def _for_everybody(explanation: Explanation) -> Explanation:
    """The explanation without the author's words that people are not shown: of those only the kind is named."""
    shown = [one for one in explanation.facets if one.kind in PUBLIC_KINDS]
    hidden: defaultdict[str, float] = defaultdict(float)
    for one in explanation.facets:
        if one.kind not in PUBLIC_KINDS:
            hidden[one.kind] += one.share
    return replace(explanation, facets=(*shown, *(FacetShare(kind, "", share) for kind, share in hidden.items())))


def _language_and_text(arguments: Mapping[str, str]) -> tuple[str | None, str]:
    """The language and the text. What is no language's name is the beginning of the text."""
    named, text = arguments.get("language", "").strip(), arguments.get("text", "").strip()
    if named.casefold() in INTO and text:
        named, _, text = text.partition(" ")
    is_word = named.casefold() in CODES_THAT_ARE_WORDS and bool(text)
    language = language_named(named) if named and not is_word else None
    return language, text.strip() if language is not None else f"{named} {text}".strip()


def _translation(made: Translation, text: str, language: str) -> str:
    if not made.is_unsure:
        return made.text
    if not made.text or made.text.casefold() == " ".join(text.split()).casefold():
        return NOT_TRANSLATED.format(language=language)
    return UNSURE_TRANSLATION.format(language=language, text=made.text)


def _shown_when(shown: PictureShown) -> str:
    name = speaker_label(shown.author.display_name) if shown.author is not None and shown.author.display_name else "You"
    return f"{name} showed it on {shown.shown_at:%d %B %Y at %H:%M} UTC"


def _reply_picture(found: FoundPicture, words: str, number: int) -> ReplyPicture:
    ending = "png" if found.shown.attachment.mime == "image/png" else "jpg"
    return ReplyPicture(f"found-{number}.{ending}", found.data, alt=f"a picture found for “{words}”")


def _cut(text: str) -> str:
    return " ".join(text.split())[:MAX_WORDS_LENGTH]


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_QUOTE_LENGTH else f"{line[:MAX_QUOTE_LENGTH]}…"
