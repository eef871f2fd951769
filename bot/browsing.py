"""Conversations as a page shows them, and commands about them: who is there, what was said, and a new beginning.

Owns what people may look up and choose. Answers nobody: `bot.chat` does.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from bot.adapters.base import ConversationBrowser
from bot.dialogue import Dialogue, PictureStore, conversation_of
from bot.errors import CommandError, MediaError, PersonaError
from bot.greeting import greetings_for
from bot.hearing import NO_PERSONA
from bot.personas.context import ContextReport
from bot.personas.prompt import speaker_label
from bot.queues import KeyedLocks, KeyedQueues
from bot.stage import PersonaSource, RoomStore, Stage, Stages
from bot.steering import NO_REPLY, NOT_MY_REPLY, SteeredStore
from bot.types import ChatKind, ConversationKey, NewTurn, PersonaCard, ReplyOrigin, Room, SpokenTurn, StoredTurn
from bot.words import fold
from engine.persona import Persona
from engine.types import GenerationRequest, Role

HAS_BEGUN = "We are in the middle of a conversation: /reset forgets it, then choose how I begin."
NOT_AN_ANSWER = "That was no answer to anything: there was only me."

# As far back as replies are looked for that somebody asks about.
MAX_TURNS_LOOKED_THROUGH = 1000


class BrowsedStore(SteeredStore, Protocol):
    """What was said: `bot.store.repositories.Conversations`. Raises `StoreError`."""

    async def append(
        self,
        key: ConversationKey,
        turn: NewTurn,
        *,
        awaited: Sequence[str] = (),
        kind: ChatKind | None = None,
        settles: Sequence[int] = (),
    ) -> StoredTurn | None:
        """Remember `turn`, for good when this returns; `None` where one of its messages was seen already.

        The personas `awaited` owe it a reply. A reply settles what its persona owes to the turn that it answers, and to
        `settles`. Once begun it ends, also where the caller is cancelled.
        """

    async def reset(self, key: ConversationKey) -> int:
        """Forget the conversation, and say how many turns it had."""

    async def has_attachment(self, room: Room, digest: str) -> bool:
        """Whether that picture was shown in `room`."""


@dataclass(frozen=True, slots=True)
class AskedReply:
    """A reply, and the request that it answers, put together anew: of the persona as it is today. `report` says what it
    is made of."""

    request: GenerationRequest
    reply: str
    has_persona_changed: bool
    report: ContextReport


class Browsing(ConversationBrowser):
    """Shows conversations. `arrivals` and `replies` are what is waited for in a room, shared with whoever answers."""

    def __init__(
        self,
        library: PersonaSource,
        stages: Stages,
        dialogue: Dialogue,
        conversations: BrowsedStore,
        rooms: RoomStore,
        attachments: PictureStore,
        *,
        arrivals: KeyedLocks[Room],
        replies: KeyedQueues[ConversationKey],
    ) -> None:
        self.stages = stages
        self._library = library
        self._dialogue = dialogue
        self._conversations = conversations
        self._rooms = rooms
        self._attachments = attachments
        self._arrivals = arrivals
        self._replies = replies

    def personas(self) -> tuple[PersonaCard, ...]:
        """All personas that can be talked to, by name."""
        return tuple(self._library.card(persona) for persona in self._library.all())

    def find_persona(self, text: str) -> Persona:
        """The persona that somebody means by an id, a name or its beginning. Raises `PersonaError`."""
        persona = self._library.find(text.strip())
        if persona is None:
            names = ", ".join(self._names_to_choose())
            known = f"I do not know who “{speaker_label(text)}” is. You can talk to: {names}."
            raise PersonaError(known if names else NO_PERSONA)
        return persona

    def _names_to_choose(self) -> list[str]:
        """What personas are called; of those with one name, their ids as well."""
        found = self._library.all()
        num_called = Counter(fold(persona.name) for persona in found)
        return [one.name if num_called[fold(one.name)] == 1 else f"{one.name} ({one.id})" for one in found]

    async def chosen(self, room: Room) -> str:
        """The id of the persona that answers in `room`. Raises `PersonaError` where there is none at all."""
        return (await self._stage(room)).main.id

    async def choose(self, room: Room, persona_id: str) -> None:
        """Let another persona answer in `room`; its earlier conversation there goes on."""
        await self._rooms.choose(room, self._library.get(persona_id).id)

    async def history(self, room: Room, *, max_turns: int = 200) -> list[StoredTurn]:
        """The conversation with the chosen persona, oldest first. A new one begins with the persona's greeting.

        Where several personas are in the room it is everything that was said there, with their names.
        """
        await self.greet_once(room)
        stage = await self._stage(room)
        heard = await self._dialogue.heard(stage, stage.main, max_turns=max_turns)
        return [self._named(spoken) if stage.is_shared else spoken.turn for spoken in heard]

    def _named(self, spoken: SpokenTurn) -> StoredTurn:
        persona = self.stages.persona(spoken.persona_id)
        if persona is None or spoken.turn.role is not Role.ASSISTANT:
            return spoken.turn
        return replace(spoken.turn, text=f"**{persona.name}:** {spoken.turn.text}")

    async def greet_once(self, room: Room, *, user_name: str | None = None, is_group: bool = False) -> str | None:
        """Begin the conversation with the chosen persona's greeting; `None` where it has begun before. Empty where the
        persona lets others begin."""
        async with self._arrivals.hold(room):
            key = await self._key(room)
            if await self._conversations.recent(key, max_turns=1):
                return None
            persona = self._library.get(key.persona_id)
            greetings = self._greetings_of(persona, key, user_name=user_name, is_group=is_group)
            if not greetings:
                return ""
            await self._conversations.append(key, NewTurn(Role.ASSISTANT, greetings[0], origin=unasked(persona)))
            return greetings[0]

    async def greetings(self, room: Room, *, user_name: str | None = None, is_group: bool = False) -> tuple[str, ...]:
        """What the chosen persona may begin with."""
        key = await self._key(room)
        return self._greetings_of(self._library.get(key.persona_id), key, user_name=user_name, is_group=is_group)

    def _greetings_of(
        self, persona: Persona, key: ConversationKey, *, user_name: str | None, is_group: bool
    ) -> tuple[str, ...]:
        return greetings_for(
            persona,
            is_group=is_group,
            user_name=user_name,
            conversation=conversation_of(key),
            now=self._dialogue.now(),
        )

    async def greet_with(self, room: Room, text: str) -> None:
        """Begin with that greeting. Raises `CommandError` where anything but another greeting has been said."""
        async with self._arrivals.hold(room):
            key = await self._key(room)
            said = await self._conversations.recent(key, max_turns=2)
            if len(said) > 1 or any(turn.role is not Role.ASSISTANT for turn in said):
                raise CommandError(HAS_BEGUN)
            for turn in said:
                await self._conversations.remove(key, [turn.id])
            persona = self._library.get(key.persona_id)
            await self._conversations.append(key, NewTurn(Role.ASSISTANT, text, origin=unasked(persona)))

    async def start_over(self, room: Room) -> None:
        """Forget the conversation with the personas of `room`, and stop what they were about to say."""
        async with self._arrivals.hold(room):
            stage = await self._stage(room)
            for lane in stage.lanes:
                await self._replies.empty(lane)
            for persona_id in stage.persona_ids:
                await self._conversations.reset(ConversationKey(room, persona_id))

    async def asked(self, room: Room, kind: ChatKind, *, message_id: str | None = None) -> AskedReply:
        """The reply in that message of `room`, or the last one, with its request. Raises `CommandError`."""
        stage = await self.stages.of(room)
        if stage is None:
            raise CommandError(NO_REPLY)
        key, reply, turns = await self._find_reply(stage, message_id)
        persona = self.stages.persona(key.persona_id)
        if persona is None:
            raise CommandError(f"“{key.persona_id}” is not here any more, so I cannot say why it said that.")
        origin = await self._conversations.origin_of(key, reply.id)
        question = _question_of(reply, origin, turns)
        siblings = await self._conversations.replies_to(room, question.turn.id)
        followed_by = [turn_id for _, turn_id in siblings if turn_id < reply.id]
        told = self._dialogue.told(turns, question, reply_id=reply.id, followed_by=followed_by)
        has_changed = origin is not None and origin.persona_digest != persona.digest()
        prepared = await self._dialogue.prepare(stage, persona, kind, told)
        return AskedReply(prepared.request, reply.text, has_changed, prepared.report)

    async def _find_reply(
        self, stage: Stage, message_id: str | None
    ) -> tuple[ConversationKey, StoredTurn, list[SpokenTurn]]:
        """A reply, among the turns that its persona has heard."""
        found = await self._conversations.turn_of(stage.room, message_id) if message_id is not None else None
        if message_id is not None and found is None:
            raise CommandError(NOT_MY_REPLY)
        key, turn_id = found or (ConversationKey(stage.room, stage.main.id), None)
        persona = self.stages.persona(key.persona_id) or stage.main
        turns = await self._dialogue.heard(stage, persona, max_turns=MAX_TURNS_LOOKED_THROUGH)
        for spoken in reversed(turns):
            if spoken.turn.role is Role.ASSISTANT and turn_id in (None, spoken.turn.id):
                return ConversationKey(stage.room, spoken.persona_id), spoken.turn, turns
        raise CommandError(NO_REPLY if message_id is None else NOT_MY_REPLY)

    async def picture(self, room: Room, digest: str) -> bytes:
        """A picture that was shown in `room`; pictures of other rooms are refused."""
        if not await self._conversations.has_attachment(room, digest):
            raise MediaError("There is no such picture in this conversation.")
        return await self._attachments.read(digest)

    async def _stage(self, room: Room) -> Stage:
        stage = await self.stages.of(room)
        if stage is None:
            raise PersonaError(NO_PERSONA)
        return stage

    async def _key(self, room: Room) -> ConversationKey:
        return ConversationKey(room, await self.chosen(room))


def _question_of(reply: StoredTurn, origin: ReplyOrigin | None, turns: Sequence[SpokenTurn]) -> SpokenTurn:
    """What `reply` answers: the turn that was noted, or else the user's last one before."""
    before = [spoken for spoken in turns if spoken.turn.role is Role.USER and spoken.turn.id < reply.id]
    if origin is not None:
        before = [spoken for spoken in turns if spoken.turn.id == origin.asked_turn_id]
    if not before:
        raise CommandError(NOT_AN_ANSWER)
    return before[-1]


def unasked(persona: Persona) -> ReplyOrigin:
    """The origin of what `persona` says by itself."""
    return ReplyOrigin(None, persona.digest())
