"""What people do with a reply that is there: another version, more of it, other words, away with it, good or bad.

Owns who may do so, and keeps memory and messages in line. Knows no platform: a press, a command and an emoji come as a
`CommandCall`. Its work waits its turn in the room like any reply.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from bot.adapters.base import ReplyChannel
from bot.commands import Choice, CommandCall, CommandReply
from bot.controls import reply_controls
from bot.dialogue import Dialogue, TurnStore, conversation_of
from bot.errors import CommandError, DeliveryError
from bot.greeting import greetings_for
from bot.labels import without_labels
from bot.logs import log_failure
from bot.queues import KeyedQueues
from bot.replies import CUT_SHORT, Pacing, ReplyStream, send_text
from bot.stage import Stage, Stages
from bot.types import (
    Alternatives,
    Author,
    ChatKind,
    Control,
    ConversationKey,
    IncomingReaction,
    Rating,
    ReplyOrigin,
    Room,
    SpokenTurn,
    StoredTurn,
)
from engine.errors import EngineError
from engine.persona import Persona
from engine.types import GenerationRequest, ReplyChunk, ReplyEngine, Role

logger = logging.getLogger(__name__)

NO_REPLY = "I have not answered anything here yet: ask me something first."
NOT_MY_REPLY = "I do not remember that message as an answer of mine. Reply to one of my answers, or to none."
NOT_YOURS = "Only whoever asked for that answer, or a moderator, may change it."
NOT_THE_LAST = "The conversation has gone on since: only my last answer can be changed like that."
NOTHING_TO_UNDO = "There is nothing of yours to take back."
NOBODY_ASKED = "Nobody asked for that: there is nothing to answer anew."
FIRST_VERSION = "There is no earlier version."
NOTHING_TO_ADD = "I have said all I have to say about that."
NO_NEW_TEXT = "Tell me the new text, such as: /edit I never said that."
NOTHING_RUNS = "I am not saying anything right now."
TOO_MANY = "I have my hands full in this room. Please try again in a moment."
NO_CHANNEL = "That cannot be done from here."
RATINGS_OFF = "Ratings are switched off here: whoever runs me can set chat.ratings = true."
MAY_I_KEEP = (
    "May I keep your ratings? With each I would keep the conversation that it is about, for my training. "
    "You can take it back with /ratings off; then all of them are deleted."
)
KEPT = "Thank you. I keep that, for my training; /ratings off takes it back."
TAKEN_BACK = "I have forgotten what you thought of that answer."
NOT_YOUR_EXCHANGE = "Only whoever asked for that answer may rate it."

MAX_STEPS_BACK = 16
MAX_TURNS_LOOKED_THROUGH = 200

# What an emoji under one of the bot's messages does.
REACTIONS = {
    "👍": ("rate", "good"),
    "👎": ("rate", "bad"),
    "🔁": ("regenerate", ""),
    "🔄": ("regenerate", ""),
    "🗑": ("delete", ""),
    "❌": ("delete", ""),
}


class SteeredStore(TurnStore, Protocol):
    """What steering needs of `bot.store.repositories.Conversations`. Raises `StoreError`."""

    async def turn(self, key: ConversationKey, turn_id: int) -> StoredTurn | None:
        """A turn as it is now."""

    async def turn_of(self, room: Room, message_id: str) -> tuple[ConversationKey, int] | None:
        """The turn that came in that message, and its conversation."""

    async def last_reply(self, room: Room, persona_ids: Sequence[str]) -> tuple[ConversationKey, StoredTurn] | None:
        """The newest reply of one of those personas in `room`."""

    async def origin_of(self, key: ConversationKey, turn_id: int) -> ReplyOrigin | None:
        """What that reply was made from, where that was noted."""

    async def replies_to(self, room: Room, turn_id: int) -> list[tuple[ConversationKey, int]]:
        """The replies that were made to that turn."""

    async def message_ids(self, key: ConversationKey, turn_id: int) -> tuple[str, ...]:
        """The messages that show that turn, in order."""

    async def rewrite(self, key: ConversationKey, turn_id: int, text: str) -> bool:
        """Replace a turn's text, and that of the version that counts; whether the turn was there."""

    async def alternatives(self, key: ConversationKey, turn_id: int) -> Alternatives:
        """All versions of a reply."""

    async def add_alternative(self, key: ConversationKey, turn_id: int, text: str) -> Alternatives:
        """Add a version, which counts from now on."""

    async def choose_alternative(self, key: ConversationKey, turn_id: int, index: int) -> Alternatives:
        """Let another version count."""

    async def replace_messages(self, key: ConversationKey, turn_id: int, message_ids: Sequence[str]) -> None:
        """The messages that show the turn from now on."""

    async def remove(self, key: ConversationKey, turn_ids: Sequence[int]) -> int:
        """Forget those turns, and say how many there were."""


class RatingStore(Protocol):
    """What people think of replies: `bot.store.ratings.Ratings`. Raises `StoreError`."""

    async def consent(self, author: Author) -> bool | None:
        """Whether somebody lets their ratings be kept; `None` where they were not asked yet."""

    async def give_consent(self, author: Author, is_given: bool) -> None:
        """Note the answer. Without consent, all that was kept of theirs is deleted."""

    async def rate(self, key: ConversationKey, turn_id: int, author: Author, rating: Rating | None) -> bool:
        """Keep a rating of the version that counts; `None` takes it back. Whether that was done."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply that somebody wants to change, with everything that belongs to it. `question` is what it answers."""

    stage: Stage
    persona: Persona
    key: ConversationKey
    turn: StoredTurn
    question: SpokenTurn | None
    asker: Author | None
    kind: ChatKind
    channel: ReplyChannel


class Steering:
    """The commands on replies, and what follows from edits and emoji. Raises `BotError` and `EngineError`."""

    def __init__(
        self,
        engine: ReplyEngine,
        stages: Stages,
        dialogue: Dialogue,
        conversations: SteeredStore,
        queues: KeyedQueues[ConversationKey],
        *,
        ratings: RatingStore | None = None,
        pacing: Pacing | None = None,
        has_controls: Callable[[Stage, ChatKind], bool] = lambda _stage, _kind: False,
        on_last: Callable[[Room, tuple[ReplyChannel, str] | None], None] = lambda _room, _last: None,
    ) -> None:
        """Without `ratings`, none are taken. `has_controls` says whether replies in a room have buttons, and `on_last`
        hears which message has them after the last reply was taken away."""
        self._engine = engine
        self._stages = stages
        self._dialogue = dialogue
        self._conversations = conversations
        self._queues = queues
        self._ratings = ratings
        self._pacing = pacing or Pacing()
        self._has_controls = has_controls
        self._on_last = on_last

    # --- commands

    async def swipe(self, call: CommandCall) -> CommandReply:
        """Show the version before, or the one after: a new one where there is none yet."""
        is_back = call.arguments.get("direction", "").strip().lower() in ("back", "previous", "◀", "<")

        async def turn_over(reply: _Reply) -> CommandReply:
            if reply.question is None and not is_back:
                await self._add_greeting(reply, call)
            versions = await self._conversations.alternatives(reply.key, reply.turn.id)
            index = versions.chosen + (-1 if is_back else 1)
            if reply.question is None and index >= len(versions.texts):
                index = 0  # after the last greeting comes the first one again
            if index < 0:
                raise CommandError(FIRST_VERSION)
            if index >= len(versions.texts):
                await self._answer_anew(reply)
            else:
                await self._to_its_end(self._choose(reply, index))
            return _done("Here it is.")

        return await self._in_turn(call, turn_over, is_last_only=True)

    async def regenerate(self, call: CommandCall) -> CommandReply:
        """Answer anew; the earlier version is kept."""

        async def regenerate(reply: _Reply) -> CommandReply:
            await self._answer_anew(reply)
            return _done("Here is another one.")

        return await self._in_turn(call, regenerate, is_last_only=True)

    async def go_on(self, call: CommandCall) -> CommandReply:
        """Say more, where the reply ended."""

        async def go_on(reply: _Reply) -> CommandReply:
            is_longer = await self._continue(reply)
            return _done("There it goes on.") if is_longer else CommandReply(NOTHING_TO_ADD, is_private=True)

        return await self._in_turn(call, go_on, is_last_only=True)

    async def undo(self, call: CommandCall) -> CommandReply:
        """Forget the last exchange: what was asked, and every answer to it."""

        async def undo(reply: _Reply) -> CommandReply:
            root = await self._root(reply)
            if root is None:
                raise CommandError(NOTHING_TO_UNDO)
            await self._forget_exchange(reply, *root)
            await self._give_controls_back(reply, call)
            return _done("I have forgotten your last message and my answer.")

        return await self._in_turn(call, undo, is_last_only=True)

    async def delete(self, call: CommandCall) -> CommandReply:
        """Delete one reply."""

        async def delete(reply: _Reply) -> CommandReply:
            is_last = await self._is_last(reply)
            await self._forget(reply)
            if is_last:
                await self._give_controls_back(reply, call)
            return _done("It is gone.")

        return await self._in_turn(call, delete)

    async def edit(self, call: CommandCall) -> CommandReply:
        """Put other words into the persona's mouth."""
        text = call.arguments.get("text", "").strip()
        if not text:
            raise CommandError(NO_NEW_TEXT)

        async def edit(reply: _Reply) -> CommandReply:
            await self._to_its_end(self._rewrite(reply, text))
            return _done("Changed.")

        return await self._in_turn(call, edit)

    async def current_text(self, call: CommandCall) -> str:
        """The reply as it reads now, for a field in which it is edited; empty where there is none."""
        try:
            return (await self._find_kept(call)).turn.text
        except CommandError:
            return ""

    async def rate(self, call: CommandCall) -> CommandReply:
        """Keep what the one who asked thinks of a reply, with their consent."""
        if self._ratings is None:
            raise CommandError(RATINGS_OFF)
        reply = await self._find_kept(call)
        if not _is_same(reply.asker, call.author):
            raise CommandError(NOT_YOUR_EXCHANGE)
        value = call.arguments.get("rating", "").strip().lower()
        if value not in (*Rating, "none"):
            raise CommandError("Say “good”, “bad” or “none”, such as: /rate good")
        if await self._ratings.consent(call.author):
            await self._ratings.rate(reply.key, reply.turn.id, call.author, None if value == "none" else Rating(value))
            return CommandReply(TAKEN_BACK if value == "none" else KEPT, is_private=True)
        yes, no = Choice("Yes, keep them", "on"), Choice("No", "off")
        return CommandReply(MAY_I_KEEP, True, (yes, no), ("ratings",), "answer")

    async def ratings(self, call: CommandCall) -> CommandReply:
        """Let ratings be kept, or have all of one's own deleted."""
        if self._ratings is None:
            raise CommandError(RATINGS_OFF)
        answer = call.arguments.get("answer", "").strip().lower()
        if answer not in ("on", "off"):
            is_given = await self._ratings.consent(call.author)
            now = "I keep your ratings." if is_given else "I keep no ratings of yours."
            return CommandReply(f"{now} /ratings on or /ratings off changes that.", is_private=True)
        await self._ratings.give_consent(call.author, answer == "on")
        if answer == "on":
            return CommandReply("Thank you. From now on I keep how you rate my answers to you.", is_private=True)
        return CommandReply("I keep none of your ratings; those that I had are deleted.", is_private=True)

    async def stop(self, call: CommandCall) -> CommandReply:
        """Break off what is being said in the room."""
        is_stopped = False
        for lane in self._busy_lanes(call.room):
            person = self._queues.person_running(lane)
            if person is None:
                continue
            if call.kind is ChatKind.GROUP and not call.is_moderator and person != call.author.user_id:
                raise CommandError("Only whoever asked, or a moderator, may stop that answer.")
            is_stopped |= await self._queues.cancel_running(lane)
        if not is_stopped:
            raise CommandError(NOTHING_RUNS)
        return _done("Stopped.")

    # --- what follows from something else

    async def react(self, reaction: IncomingReaction, channel: ReplyChannel) -> None:
        """An emoji under a reply is a command in short, where its author may give that."""
        path, value = REACTIONS.get(reaction.emoji.rstrip("\ufe0f"), ("", ""))
        if not path or (not reaction.is_added and path != "rate"):
            return
        call = CommandCall(
            reaction.room,
            reaction.kind,
            reaction.author,
            {"rating": value if reaction.is_added else "none"} if path == "rate" else {},
            message_id=reaction.message_id,
            is_moderator=reaction.is_moderator,
            channel=channel,
        )
        commands = {"rate": self.rate, "regenerate": self.regenerate, "delete": self.delete}
        try:
            if path == "rate" and (self._ratings is None or not await self._ratings.consent(reaction.author)):
                return  # nobody is asked for an emoji's sake
            await commands[path](call)
        except CommandError as error:
            # It may well be just an emoji.
            logger.debug("an emoji was no command: %s", error)

    async def follow(
        self, stage: Stage, key: ConversationKey, question: StoredTurn, *, kind: ChatKind, channel: ReplyChannel
    ) -> None:
        """A message was edited: answer it anew, where its replies are the last.

        Who edits again and again is not answered for every edit: the one that waits takes the newest words.
        """
        lane, tag = stage.lane(key.persona_id), ("edit", question.id)
        if not {question.id, tag}.isdisjoint(self._queues.waiting(lane)):
            return  # its replies are still to come

        async def follow() -> None:
            for reply_key, reply_id in await self._conversations.replies_to(stage.room, question.id):
                reply = await self._reply(stage, reply_key, reply_id, kind, channel)
                if reply is not None and await self._is_last(reply):
                    await self._answer_anew(reply)

        person = question.author.user_id if question.author is not None else None
        await self._queues.run(lane, follow, tag=tag, person=person)

    async def forget_exchange(
        self, stage: Stage, key: ConversationKey, question: StoredTurn, *, channel: ReplyChannel
    ) -> None:
        """A message was deleted: forget it, and delete every reply to it."""
        for reply_key, reply_id in await self._replies_from(stage.room, question.id):
            await self.forget_reply(stage, reply_key, reply_id, channel=channel)
        await self._conversations.remove(key, [question.id])

    async def forget_reply(self, stage: Stage, key: ConversationKey, turn_id: int, *, channel: ReplyChannel) -> None:
        """Forget a reply, also where its persona is gone, and delete the messages that show it if that can be done."""
        persona = self._stages.persona(key.persona_id)
        speaking = channel if persona is None else self._stages.speaking(channel, stage, persona)
        for message_id in await self._conversations.message_ids(key, turn_id):
            try:
                await speaking.delete(message_id)
            except DeliveryError as error:
                logger.info("a message of a reply that was deleted stays: %s", error)
        await self._conversations.remove(key, [turn_id])

    # --- finding replies

    async def _in_turn(
        self,
        call: CommandCall,
        work: Callable[[_Reply], Coroutine[Any, Any, CommandReply]],
        *,
        is_last_only: bool = False,
    ) -> CommandReply:
        """Find the reply, make sure that it may be changed, and do `work` when its turn comes."""
        found = await self._find_kept(call)
        self._require_permission(call, found)
        answers: list[CommandReply] = []

        async def job() -> None:
            reply = await self._reply(found.stage, found.key, found.turn.id, call.kind, found.channel)
            if reply is None:
                raise CommandError(NOT_MY_REPLY)
            if is_last_only and not await self._is_last(reply):
                raise CommandError(NOT_THE_LAST)
            answers.append(await work(reply))

        lane = found.stage.lane(found.key.persona_id)
        if self._queues.is_full(lane, call.author.user_id):
            raise CommandError(TOO_MANY)
        await self._queues.run(lane, job, person=call.author.user_id)
        # Whoever stopped it, or started over, knows.
        return answers[0] if answers else _done("Stopped.")

    async def _find_kept(self, call: CommandCall) -> _Reply:
        """`_find`, also for a reply that is shown already and about to be kept."""
        try:
            return await self._find(call)
        except CommandError:
            if not await self._has_waited(call.room):
                raise
        return await self._find(call)

    async def _has_waited(self, room: Room) -> bool:
        """Wait until what runs in `room` has ended; whether anything did run."""

        async def nothing() -> None:
            return

        lanes = [lane for lane in self._busy_lanes(room) if self._queues.person_running(lane) is not None]
        for lane in lanes:
            await self._queues.run(lane, nothing)
        return bool(lanes)

    def _busy_lanes(self, room: Room) -> list[ConversationKey]:
        """Where something runs in `room`: also for personas that have just left it, or never were in its cast."""
        return [lane for lane in self._queues.busy() if lane.room == room]

    async def _find(self, call: CommandCall) -> _Reply:
        """The reply under whose message a button was pressed, that was replied to, or the last one in the room."""
        if call.channel is None:
            raise CommandError(NO_CHANNEL)
        stage = await self._stages.of(call.room)
        if stage is None:
            raise CommandError(NO_REPLY)
        message_id = call.message_id or (call.reply_to.message_id if call.reply_to is not None else None)
        if message_id is not None:
            found = await self._conversations.turn_of(call.room, message_id)
            reply = await self._reply(stage, *found, call.kind, call.channel) if found is not None else None
            if reply is None:
                raise CommandError(NOT_MY_REPLY)
            return reply
        last = await self._conversations.last_reply(call.room, stage.persona_ids)
        reply = await self._reply(stage, last[0], last[1].id, call.kind, call.channel) if last is not None else None
        if reply is None:
            raise CommandError(NO_REPLY)
        return reply

    async def _reply(
        self, stage: Stage, key: ConversationKey, turn_id: int, kind: ChatKind, channel: ReplyChannel
    ) -> _Reply | None:
        """That reply as it is now; `None` where it is gone, or nobody of today says it."""
        turn, persona = await self._conversations.turn(key, turn_id), self._stages.persona(key.persona_id)
        if turn is None or turn.role is not Role.ASSISTANT or persona is None:
            return None
        question = await self._question(stage, key, turn_id)
        asker = await self._asker(stage, question)
        return _Reply(stage, persona, key, turn, question, asker, kind, self._stages.speaking(channel, stage, persona))

    async def _question(self, stage: Stage, key: ConversationKey, reply_id: int) -> SpokenTurn | None:
        """The turn that a reply answers, which may be in another persona's conversation of the room."""
        origin = await self._conversations.origin_of(key, reply_id)
        if origin is None or origin.asked_turn_id is None:
            return None
        for persona_id in dict.fromkeys((key.persona_id, *stage.persona_ids)):
            turn = await self._conversations.turn(ConversationKey(stage.room, persona_id), origin.asked_turn_id)
            if turn is not None:
                return SpokenTurn(persona_id, turn)
        return None

    async def _asker(self, stage: Stage, question: SpokenTurn | None) -> Author | None:
        """Who began the exchange that `question` belongs to: personas answer each other for somebody."""
        for _ in range(MAX_STEPS_BACK):
            if question is None:
                return None
            if question.turn.author is not None:
                return question.turn.author
            question = await self._question(stage, ConversationKey(stage.room, question.persona_id), question.turn.id)
        return None

    async def _root(self, reply: _Reply) -> tuple[ConversationKey, StoredTurn] | None:
        """What a person said that led to `reply`."""
        question = reply.question
        for _ in range(MAX_STEPS_BACK):
            if question is None:
                return None
            key = ConversationKey(reply.stage.room, question.persona_id)
            if question.turn.author is not None:
                return key, question.turn
            question = await self._question(reply.stage, key, question.turn.id)
        return None

    def _require_permission(self, call: CommandCall, reply: _Reply) -> None:
        if call.kind is ChatKind.DIRECT or call.is_moderator or _is_same(reply.asker, call.author):
            return
        raise CommandError(NOT_YOURS)

    async def _is_last(self, reply: _Reply) -> bool:
        """Whether nobody has said anything after `reply` but personas to each other or to the same question."""
        heard = await self._dialogue.heard(reply.stage, reply.persona, max_turns=MAX_TURNS_LOOKED_THROUGH)
        later = [spoken.turn for spoken in heard if spoken.turn.id > reply.turn.id]
        if not reply.stage.is_shared:
            return not later
        return not any(turn.role is Role.USER for turn in later)

    async def _replies_from(self, room: Room, question_id: int) -> list[tuple[ConversationKey, int]]:
        """Every reply to a turn, and the replies of personas to those."""
        found: dict[int, ConversationKey] = {}
        to_look_at = [question_id]
        while to_look_at and len(found) < MAX_TURNS_LOOKED_THROUGH:
            for key, reply_id in await self._conversations.replies_to(room, to_look_at.pop()):
                if reply_id not in found:
                    found[reply_id] = key
                    to_look_at.append(reply_id)
        return [(key, reply_id) for reply_id, key in found.items()]

    # --- changing them

    async def _answer_anew(self, reply: _Reply) -> None:
        """Another version of `reply`. Where none comes about, the one that was there is shown again."""
        versions = await self._conversations.alternatives(reply.key, reply.turn.id)
        request = await self._request(reply)
        seed = request.sampling.seed
        if seed is not None:  # the same seed would give the same words
            request = replace(request, sampling=replace(request.sampling, seed=seed + len(versions.texts)))
        stream = await self._stream(reply, replace_all=versions, num_more=1)
        is_failed = False
        try:
            names = self._dialogue.names(reply.stage, reply.persona, reply.asker)
            await stream.deliver(without_labels(self._engine.generate(request), names))
        except EngineError:
            is_failed = True
            raise
        finally:
            await self._keep_messages(reply, stream)
            if stream.text_to_remember and not is_failed:
                await self._conversations.add_alternative(reply.key, reply.turn.id, stream.text_to_remember)
            else:
                await self._to_its_end(self._show(reply, reply.turn.text))

    async def _add_greeting(self, reply: _Reply, call: CommandCall) -> None:
        """Of a greeting the next version is another one, as long as there are any."""
        versions = await self._conversations.alternatives(reply.key, reply.turn.id)
        if versions.chosen + 1 < len(versions.texts):
            return
        is_group = call.kind is ChatKind.GROUP
        greetings = greetings_for(
            reply.persona,
            is_group=is_group,
            user_name=None if is_group else call.author.display_name,
            conversation=conversation_of(reply.key),
            now=self._dialogue.now(),
        )
        others = [text for text in greetings if text not in versions.texts]
        if others:
            await self._conversations.add_alternative(reply.key, reply.turn.id, others[0])
            await self._conversations.choose_alternative(reply.key, reply.turn.id, versions.chosen)

    async def _continue(self, reply: _Reply) -> bool:
        """Go on with `reply`, and say whether anything came."""
        start = _without_ellipsis(reply.turn.text)
        request = await self._request(reply, reply_start=start)
        versions = await self._conversations.alternatives(reply.key, reply.turn.id)
        stream = await self._stream(reply, replace_all=versions)
        is_failed = is_longer = False
        try:
            await stream.deliver(_after(start, self._engine.generate(request)))
        except EngineError:
            is_failed = True
            raise
        finally:
            await self._keep_messages(reply, stream)
            is_longer = len(stream.text_to_remember) > len(start) and not is_failed
            if is_longer:
                await self._conversations.rewrite(reply.key, reply.turn.id, stream.text_to_remember)
            else:
                await self._to_its_end(self._show(reply, reply.turn.text))
        return is_longer

    async def _keep_messages(self, reply: _Reply, stream: ReplyStream) -> None:
        if stream.message_ids:
            await self._conversations.replace_messages(reply.key, reply.turn.id, stream.message_ids)

    async def _request(self, reply: _Reply, *, reply_start: str = "") -> GenerationRequest:
        if reply.question is None:
            raise CommandError(NOBODY_ASKED)
        heard = await self._dialogue.heard(reply.stage, reply.persona, max_turns=MAX_TURNS_LOOKED_THROUGH)
        siblings = await self._conversations.replies_to(reply.stage.room, reply.question.turn.id)
        before = [turn_id for _, turn_id in siblings if turn_id < reply.turn.id]
        heard = [spoken for spoken in heard if spoken.turn.id < reply.turn.id]
        told = self._dialogue.told(heard, reply.question, reply_id=reply.turn.id, followed_by=before)
        prepared = await self._dialogue.prepare(
            reply.stage, reply.persona, reply.kind, told, asker=reply.asker, reply_start=reply_start
        )
        return prepared.request

    async def _choose(self, reply: _Reply, index: int) -> None:
        versions = await self._conversations.choose_alternative(reply.key, reply.turn.id, index)
        await self._show(reply, versions.texts[versions.chosen])

    async def _rewrite(self, reply: _Reply, text: str) -> None:
        await self._conversations.rewrite(reply.key, reply.turn.id, text)
        await self._show(reply, text)

    async def _to_its_end(self, change: Coroutine[Any, Any, None]) -> None:
        """Make `change`. Begun, it ends, also where the caller is cancelled: else people would see something else than
        what is remembered, or a part of it."""
        changing = asyncio.create_task(change)
        try:
            await asyncio.shield(changing)
        except asyncio.CancelledError:
            await asyncio.wait({changing}, timeout=self._pacing.grace_s)
            changing.cancel()
            await asyncio.wait({changing})
            if not changing.cancelled() and (error := changing.exception()) is not None:
                log_failure(logger, "a reply may not be shown as it is remembered", error)
            raise

    async def _show(self, reply: _Reply, text: str) -> None:
        """Bring the messages of `reply` in line with `text`, which is kept already."""
        versions = await self._conversations.alternatives(reply.key, reply.turn.id)
        message_ids = await self._conversations.message_ids(reply.key, reply.turn.id)
        new_ids = await send_text(
            reply.channel,
            text,
            pacing=self._pacing,
            instead_of=message_ids,
            controls=self._controls(reply, versions),
        )
        if new_ids != message_ids:
            await self._conversations.replace_messages(reply.key, reply.turn.id, new_ids)

    async def _stream(self, reply: _Reply, *, replace_all: Alternatives, num_more: int = 0) -> ReplyStream:
        """A stream into the messages of `reply`, of which there are then `num_more` versions."""
        texts = replace_all.texts + ("",) * num_more
        chosen = len(texts) - 1 if num_more else replace_all.chosen
        message_ids = await self._conversations.message_ids(reply.key, reply.turn.id)
        return ReplyStream(
            reply.channel,
            pacing=self._pacing,
            instead_of=message_ids,
            controls=self._controls(reply, Alternatives(texts, chosen)),
        )

    def _controls(self, reply: _Reply, versions: Alternatives) -> tuple[Control, ...]:
        if not self._has_controls(reply.stage, reply.kind):
            return ()
        return reply_controls(versions, has_ratings=self._ratings is not None)

    async def _forget_exchange(self, reply: _Reply, key: ConversationKey, question: StoredTurn) -> None:
        await self.forget_exchange(reply.stage, key, question, channel=reply.channel)

    async def _give_controls_back(self, gone: _Reply, call: CommandCall) -> None:
        """The reply before becomes the last one again, which has the buttons."""
        stage = gone.stage
        self._on_last(stage.room, None)
        last = await self._conversations.last_reply(stage.room, stage.persona_ids)
        reply = (
            await self._reply(stage, last[0], last[1].id, gone.kind, call.channel) if last and call.channel else None
        )
        if reply is None or reply.question is None or not self._has_controls(stage, gone.kind):
            return
        versions = await self._conversations.alternatives(reply.key, reply.turn.id)
        for message_id in (await self._conversations.message_ids(reply.key, reply.turn.id))[-1:]:
            self._on_last(stage.room, (reply.channel, message_id))
            try:
                await reply.channel.ready()
                await reply.channel.show_controls(message_id, self._controls(reply, versions))
            except DeliveryError as error:
                logger.info("an earlier reply gets no buttons back: %s", error)

    async def _forget(self, reply: _Reply) -> None:
        await self.forget_reply(reply.stage, reply.key, reply.turn.id, channel=reply.channel)


def _done(text: str) -> CommandReply:
    return CommandReply(text, is_private=True, is_silent=True)


def _is_same(one: Author | None, other: Author) -> bool:
    return one is not None and (one.platform, one.user_id) == (other.platform, other.user_id)


def _without_ellipsis(text: str) -> str:
    """`text` without the sign that it was cut short."""
    cut = text.removesuffix(CUT_SHORT)
    return cut if cut != text and cut[-1:].isalnum() else text


async def _after(start: str, chunks: AsyncIterator[ReplyChunk]) -> AsyncIterator[ReplyChunk]:
    """`chunks`, with what was said before them."""
    yield ReplyChunk(start)
    async for chunk in chunks:
        yield chunk
