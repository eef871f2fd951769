"""What a reply is made from: the turns that a persona has heard, as the engine takes them.

Owns the choice of turns and pictures, and who is told to have said what. Knows neither platforms nor queues, nor how a
reply is shown.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from bot.access import names_on
from bot.errors import StoreError
from bot.personas.prompt import HouseRules, Prepared, Scene, prepare, speaker_label
from bot.personas.recall import Recall
from bot.stage import Stage, Stages
from bot.types import Attachment, Author, ChatKind, ConversationKey, Room, SpokenTurn, StoredTurn
from bot.words import fold
from engine.persona import Persona
from engine.types import Asker, Image, Role, SamplingSettings, TokenMeasure, Turn

logger = logging.getLogger(__name__)


class TurnStore(Protocol):
    """What was said: `bot.store.repositories.Conversations`. Raises `StoreError`."""

    async def recent(self, key: ConversationKey, *, max_turns: int) -> list[StoredTurn]:
        """The newest turns since the last reset, oldest first."""

    async def room_turns(self, room: Room, persona_ids: Sequence[str], *, max_turns: int) -> list[SpokenTurn]:
        """The newest turns of those personas' conversations in `room`, oldest first."""

    async def num_turns_before(self, room: Room, persona_ids: Sequence[str], turn_id: int) -> int:
        """How many turns of those personas' conversations in `room` are older than that one."""


class PictureStore(Protocol):
    """Stored pictures: `bot.store.attachments.AttachmentStore`. Raises `StoreError`."""

    async def put(self, data: bytes, *, mime: str, width: int, height: int) -> Attachment:
        """Keep a picture."""

    async def read(self, digest: str) -> bytes:
        """A picture that was kept."""


@dataclass(frozen=True, slots=True)
class DialogueLimits:
    """How much of a conversation a reply is made from at most, and what holds for all of them."""

    max_turns: int = 24
    max_pictures: int = 8
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    house: HouseRules = field(default_factory=HouseRules)
    timezone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """The turns that a reply is made from, oldest first, and the one among them that it answers."""

    turns: tuple[SpokenTurn, ...]
    question: StoredTurn


class Dialogue:
    """Puts requests together."""

    def __init__(
        self,
        stages: Stages,
        conversations: TurnStore,
        attachments: PictureStore,
        *,
        limits: DialogueLimits,
        measure: TokenMeasure | None = None,
        recall: Recall | None = None,
    ) -> None:
        """`measure` says what fits into a prompt; without one, the engine alone leaves turns out. `recall` finds what a
        question is about; without one, nothing is recalled."""
        self._stages = stages
        self._conversations = conversations
        self._attachments = attachments
        self._limits = limits
        self._measure = measure
        self._recall = recall

    async def heard(self, stage: Stage, persona: Persona, *, max_turns: int | None = None) -> list[SpokenTurn]:
        """The newest turns that `persona` knows of, oldest first: its own conversation's, in a shared room all."""
        max_turns = self._limits.max_turns if max_turns is None else max_turns
        if stage.is_shared and stage.has(persona.id):
            return await self._conversations.room_turns(stage.room, stage.persona_ids, max_turns=max_turns)
        key = ConversationKey(stage.room, persona.id)
        turns = await self._conversations.recent(key, max_turns=max_turns)
        return [SpokenTurn(persona.id, turn) for turn in turns]

    async def prepare(
        self,
        stage: Stage,
        persona: Persona,
        kind: ChatKind,
        told: Told,
        *,
        asker: Author | None = None,
        reply_start: str = "",
    ) -> Prepared:
        """The request for `persona`'s reply, and what it is made of. The reply begins with `reply_start`, and is for
        `asker`, by default whoever asked."""
        author = asker or told.question.author
        others = tuple(f"\n{other.name}:" for other in stage.cast if other.id != persona.id)
        return prepare(
            persona,
            await self._turns(stage, persona, kind, told),
            # Nobody speaks for the others in the room.
            sampling=replace(self._limits.sampling, stop=(*self._limits.sampling.stop, *others)),
            scene=await self._scene(stage, persona, kind, told, author),
            house=self._limits.house,
            measure=self._measure,
            asker=_asker(ConversationKey(stage.room, persona.id), author) if author is not None else None,
            reply_start=reply_start,
        )

    async def _scene(self, stage: Stage, persona: Persona, kind: ChatKind, told: Told, author: Author | None) -> Scene:
        is_group = kind is ChatKind.GROUP or stage.is_shared
        present = [spoken.turn.author.display_name for spoken in told.turns if spoken.turn.author is not None]
        names = [*(other.name for other in stage.cast if other.id != persona.id), *filter(None, present)]
        conversation = conversation_of(ConversationKey(stage.room, persona.id))
        return Scene(
            user_name=author.display_name if author is not None else None,
            is_group=is_group,
            speakers=tuple(dict.fromkeys(map(speaker_label, names))),
            num_before=await self._num_before(stage, persona, told),
            conversation=conversation,
            seed=f"{conversation}/{told.question.id}",
            recalled=await self._recall.about(persona, told.question.text) if self._recall is not None else (),
            now=told.question.created_at.astimezone(self._limits.timezone),
        )

    async def _num_before(self, stage: Stage, persona: Persona, told: Told) -> int:
        """How many messages are older than those told. Only lore asks, and only long conversations have any."""
        if not persona.lore or len(told.turns) < self._limits.max_turns:
            return 0
        persona_ids = stage.persona_ids if stage.is_shared and stage.has(persona.id) else (persona.id,)
        oldest = min(spoken.turn.id for spoken in told.turns)
        return await self._conversations.num_turns_before(stage.room, persona_ids, oldest)

    def told(
        self,
        heard: Sequence[SpokenTurn],
        question: SpokenTurn,
        *,
        reply_id: int | None = None,
        together_with: Collection[int] = (),
        followed_by: Collection[int] = (),
    ) -> Told:
        """Of `heard`, what a reply to `question` is made from; the question comes last.

        Later messages wait for their own replies; replies that came after this message answer earlier ones, up to the
        reply `reply_id` where that is made anew. The turns `together_with` were said while waiting, and are answered
        too. Only what others have said to the same question follows it: the turns `followed_by`.
        """
        asked_id = question.turn.id
        placed = {asked_id, *together_with, *followed_by}
        others = [spoken for spoken in heard if spoken.turn.id not in placed]
        earlier = [
            spoken
            for spoken in others
            if spoken.turn.id < asked_id
            or (spoken.turn.role is Role.ASSISTANT and (reply_id is None or spoken.turn.id < reply_id))
        ]
        together = [spoken for spoken in heard if spoken.turn.id in together_with]
        after = [spoken for spoken in heard if spoken.turn.id in followed_by]
        return Told((*earlier[-self._limits.max_turns :], *together, question, *after), question.turn)

    def now(self) -> datetime:
        """What the clock shows where the bot lives."""
        return datetime.now(UTC).astimezone(self._limits.timezone)

    def names(self, stage: Stage, persona: Persona, asker: Author | None) -> tuple[str, ...]:
        """What a model may put before the words of `persona`: its own names and what it is, those of the room, and the
        asker's."""
        own = filter(None, (persona.name, persona.nickname, persona.identity.species, persona.identity.occupation))
        asking = (speaker_label(asker.display_name),) if asker is not None else ()
        return (*own, *(other.name for other in stage.cast), *asking)

    async def _turns(self, stage: Stage, persona: Persona, kind: ChatKind, told: Told) -> list[Turn]:
        """The conversation as the engine takes it; the last turn is the one to answer."""
        turns: list[Turn] = []
        is_named = kind is ChatKind.GROUP or stage.is_shared
        taken = {_folded_label(name) for one in (persona, *stage.cast) for name in names_on(one, stage.room.platform)}
        num_left = max(self._limits.max_pictures, len(told.question.attachments))
        for spoken in reversed(told.turns):
            stored = spoken.turn
            images = await self._images(stored.attachments[:num_left], is_needed=stored is told.question)
            num_left -= len(images)
            is_own = stored.role is Role.ASSISTANT and spoken.persona_id == persona.id
            text = self._with_name(spoken, taken) if is_named and not is_own else stored.text
            turns.append(Turn(Role.ASSISTANT if is_own else Role.USER, text, images))
        return turns[::-1]

    def _with_name(self, spoken: SpokenTurn, taken: Collection[str]) -> str:
        """What was said, after its speaker's name. Nobody speaks for others: a person's name is none of the names that
        are `taken` by personas, and only a turn's first line can begin with a name."""
        turn = spoken.turn
        if turn.author is not None:
            label = speaker_label(turn.author.display_name)
            label = f"{label} (user)" if _folded_label(label) in taken else label
        elif turn.role is Role.ASSISTANT:
            other = self._stages.persona(spoken.persona_id)
            label = speaker_label(other.name if other is not None else spoken.persona_id)
        else:
            return turn.text
        return f"{label}: {_indented(turn.text)}".rstrip()

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


def conversation_of(key: ConversationKey) -> str:
    """A name for that conversation, from which what is left to chance in it comes."""
    return "/".join([*filter(None, astuple(key.room)), key.persona_id])


def _folded_label(name: str) -> str:
    return fold(speaker_label(name))


def _indented(text: str) -> str:
    """`text` with every line but the first moved in."""
    first, *others = text.splitlines() or [""]
    return "\n".join([first, *(f"  {line}".rstrip() for line in others)])


def _asker(key: ConversationKey, author: Author) -> Asker:
    """For whom the engine makes a reply. A person is the same in all rooms of a platform."""
    room = "/".join(filter(None, (key.room.platform, key.room.chat_id, key.room.thread_id)))
    return Asker(user=f"{author.platform}/{author.user_id}", room=room, conversation=f"{room}/{key.persona_id}")
