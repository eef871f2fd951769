"""The straight line: a message comes in, personas' replies go out, and all of it is remembered.

Owns the order of the steps, who waits for whom, what follows when a message is changed, and what people are told when a
step fails. Knows neither platforms nor SQL nor torch: the engine, the store and the personas are handed in.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from bot.adapters.base import MessageHandler, ReplyChannel
from bot.browsing import BrowsedStore, Browsing, unasked
from bot.cast import who_speaks_next
from bot.controls import reply_controls
from bot.dialogue import Dialogue, DialogueLimits, PictureStore, conversation_of
from bot.errors import BotError, CommandError, DeliveryError, MediaError, PersonaError, StoreError
from bot.expressions import expression_for
from bot.greeting import greetings_for, is_hello
from bot.hearing import HeardStore, Hearing, HearingOptions
from bot.labels import without_labels
from bot.media.links import LinkedPictures
from bot.media.pictures import PictureLimits
from bot.personas.prompt import HouseRules
from bot.personas.recall import Recall
from bot.queues import KeyedLocks, KeyedQueues
from bot.replies import Pacing, ReplyStream, send_text
from bot.stage import PersonaSource, RoomStore, Stage, Stages
from bot.steering import RatingStore, Steering
from bot.types import (
    Attachment,
    Author,
    AwaitedReply,
    ChatKind,
    Control,
    ConversationKey,
    IncomingMessage,
    IncomingReaction,
    NewTurn,
    ReplyOrigin,
    Room,
    SpokenTurn,
    StoredTurn,
)
from engine.errors import AskerBusy, EngineBusy, EngineClosing, EngineError, PromptTooLong
from engine.persona import Persona
from engine.types import ReplyEngine, Role, SamplingSettings, TokenMeasure

logger = logging.getLogger(__name__)

BROKEN = "Something went wrong on my side. It is in my log; please try again, or tell whoever runs me."
NOT_KEPT = "My memory has a problem, so I could not keep this. Please tell whoever runs me: my log says what to do."
NOT_GENERATED = "I could not think of an answer: my engine has a problem. Please try again in a moment."
TOO_BUSY = "Too many people are talking to me right now. Please try again in a minute."
ASKED_ENOUGH = "I am still answering what you asked before. Please wait for one of the answers, then send this again."
RESTARTING = "I am being restarted. Please send this again in a minute."
BACK_SOON = "I am being restarted. If I have not answered in a few minutes, please send this again."
NOTHING_SAID = "I am listening."
TOO_LARGE = (
    "{name} is more than the model here can read at once. Whoever runs me can shorten the persona, or take a model "
    "that reads more."
)
TOO_LONG = "That is more than I can read at once. Please send a shorter message."

# No message is too old before that.
MIN_PATIENCE_S = 120.0
# Whoever writes on although too much waits is told once in so long.
REFUSAL_INTERVAL_S = 30.0
# Rooms whose last reply's buttons are remembered, to be taken away from under it.
MAX_ROOMS_WITH_CONTROLS = 10_000


class ConversationStore(BrowsedStore, HeardStore, Protocol):
    """What was said, and what is owed: `bot.store.repositories.Conversations`. Raises `StoreError`."""

    async def settle(self, key: ConversationKey, turn_id: int, persona_id: str) -> None:
        """That persona owes no reply to that turn any more."""

    async def note_shown(
        self, key: ConversationKey, turn_id: int, persona_id: str, message_ids: tuple[str, ...]
    ) -> None:
        """The reply that is owed is shown in those messages so far."""

    async def awaited(self, platform: str, *, since: datetime) -> list[AwaitedReply]:
        """What is owed on `platform`, oldest first; what is older than `since` is given up."""

    async def reset(self, key: ConversationKey) -> int:
        """Forget the conversation, and say how many turns it had."""


class Counting(Protocol):
    """What is counted for whoever runs the bot: `bot.metrics.Metrics`."""

    def accepted(self, platform: str) -> None:
        """A message is to be answered."""

    def answered(self, platform: str, duration_s: float) -> None:
        """It was, so long after it came."""

    def refused(self, platform: str, reason: str) -> None:
        """It was not; `reason` is an error's name."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How the bot converses. `default_persona=None` is the first by name.

    `max_exchange` is how many replies personas in one room give to each other in a row. `has_controls` says for each
    kind of chat whether replies have buttons. On the platforms `resumed`, the next start ends what this one could not;
    on those `greeting`, a persona greets whoever writes to it for the first time.
    `timezone` is that of quiet hours, `None` the machine's.
    """

    default_persona: str | None = None
    max_history_turns: int = 24
    max_history_pictures: int = 8
    max_waiting_messages: int = 8
    merge_waiting: bool = False
    max_exchange: int = 2
    has_controls: frozenset[ChatKind] = frozenset()
    always_faces: frozenset[str] = frozenset()
    resume_s: float = 900.0
    resumed: frozenset[str] = frozenset()
    greeting: frozenset[str] = frozenset()
    house: HouseRules = field(default_factory=HouseRules)
    timezone: tzinfo | None = None
    max_pictures: int = 4
    picture_limits: PictureLimits = field(default_factory=PictureLimits)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    pacing: Pacing = field(default_factory=Pacing)


class _QueueFull(BotError):
    """More messages wait in one conversation than may."""


class _Closing(BotError):
    """The bot is about to end, and takes nothing new."""


@dataclass(slots=True, eq=False)
class _Job:
    """A message on its way to its replies.

    `turn=None` is a call without words: it is greeted. `merged` are earlier turns that the same replies answer,
    `superseded` is the last of them, and `shown` the messages that a persona's reply was shown in before a restart.
    `is_first`: nothing was said before, and the persona is to greet. `is_taken_back`: whoever took it out of its queue
    sees to what is owed.
    """

    stage: Stage
    personas: tuple[Persona, ...]
    kind: ChatKind
    author: Author
    reply_to: str | None
    message_id: str
    channel: ReplyChannel
    turn: StoredTurn | None
    notices: tuple[str, ...] = ()
    merged: tuple[int, ...] = ()
    superseded: "_Job | None" = None
    shown: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kept_with: ConversationKey | None = None
    message: IncomingMessage | None = None
    is_first: bool = False
    stream: ReplyStream | None = None
    current: Persona | None = None
    is_taken_back: bool = False
    began_at: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> ConversationKey:
        """Where the message is kept: with the first that answers."""
        return self.kept_with or ConversationKey(self.stage.room, self.personas[0].id)

    @property
    def lane(self) -> ConversationKey:
        """Where it waits."""
        return self.stage.lane(self.personas[0].id)

    def move(self, key: ConversationKey) -> None:
        """From now on the message is kept as `key`."""
        self.stage, self.kept_with = replace(self.stage, room=key.room), self.kept_with and key

    @property
    def person(self) -> str:
        """Who waits."""
        return self.author.user_id

    @property
    def tag(self) -> int | None:
        """What it is known by in its queue."""
        return self.turn.id if self.turn is not None else None


class ChatService(Browsing, MessageHandler):
    """Answers messages, and shows conversations.

    A message is remembered as soon as it has arrived, in the order of arrival in its room, with the replies that are
    owed to it; then it waits for its turn. So a crash loses no message and doubles no answer, and one slow reply delays
    only its own conversation.
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
        ratings: RatingStore | None = None,
        links: LinkedPictures | None = None,
        counting: Counting | None = None,
        measure: TokenMeasure | None = None,
        recall: Recall | None = None,
        roll: Callable[[], float] = random.random,
    ) -> None:
        """`on_pictures` hears of pictures that were shown, once their message is answered. Without `ratings` none are
        taken, and without `links` no pictures fetched from them. `measure` and `recall` are those of `Dialogue`. `roll`
        gives numbers from 0 to 1, for what happens by chance."""
        options = options or ChatOptions()
        stages = Stages(library, rooms, default_persona=options.default_persona, always_faces=options.always_faces)
        limits = DialogueLimits(
            options.max_history_turns,
            options.max_history_pictures,
            options.sampling,
            house=options.house,
            timezone=options.timezone,
        )
        super().__init__(
            library,
            stages,
            Dialogue(stages, conversations, attachments, limits=limits, measure=measure, recall=recall),
            conversations,
            rooms,
            attachments,
            arrivals=KeyedLocks(),
            replies=KeyedQueues(max_inside=options.max_waiting_messages),
        )
        self._conversations: ConversationStore = conversations
        self._engine = engine
        self._options = options
        self._on_pictures = on_pictures
        self._has_ratings = ratings is not None
        self._counting = counting
        self._roll = roll
        self._hearing = Hearing(
            stages,
            self._dialogue,
            conversations,
            attachments,
            options=HearingOptions(options.max_pictures, options.picture_limits, options.timezone),
            links=links,
            roll=roll,
        )
        self._jobs: dict[int, _Job] = {}
        self._moved: dict[tuple[str, str], str] = {}
        self._controlled: dict[Room, tuple[ReplyChannel, str]] = {}
        self._refused_at: dict[tuple[Room, str], float] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._began_at = datetime.now(UTC)
        self._is_closing = False
        self._num_awaited = 0
        self._nothing_to_do = asyncio.Event()
        self._nothing_to_do.set()
        self.steering = Steering(
            engine,
            self.stages,
            self._dialogue,
            conversations,
            self._replies,
            ratings=ratings,
            pacing=self._options.pacing,
            has_controls=self.has_controls,
            on_last=self._note_last,
        )

    # --- answering

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        """Answer `message` in `channel`, if it is meant for the bot. Never raises but for cancellation."""
        job: _Job | None = None
        reply_to = _reply_to(message)
        is_late = self._is_closing
        with self._awaited(is_late=is_late):
            try:
                async with self._arrivals.hold(message.room):
                    job = await self._accept(message, channel, is_late=is_late)
                # No await in between: messages join their conversation's queue in the order of arrival.
                if job is not None:
                    await self._run(job)
            except (BotError, EngineError) as error:
                _log_expected(error, message.room, message.message_id)
                self._count_refused(message.room, error)
                if not isinstance(error, _QueueFull) or self._is_first_refusal(message):
                    await self._tell(channel, _explain(error), reply_to, room=message.room)
            except Exception:
                logger.exception("message %s in %s could not be answered", message.message_id, message.room)
                await self._tell(channel, BROKEN, reply_to, room=message.room)

    def _is_first_refusal(self, message: IncomingMessage) -> bool:
        """Whether somebody hears that too much waits for the first time in a while: a flood's refusals are a flood."""
        now = time.monotonic()
        self._refused_at = {who: at for who, at in self._refused_at.items() if now - at < REFUSAL_INTERVAL_S}
        who = (message.room, message.author.user_id)
        is_first = who not in self._refused_at
        self._refused_at.setdefault(who, now)
        return is_first

    async def resume(self, platform: str, open_channel: Callable[[Room, ChatKind], ReplyChannel | None]) -> int:
        """Answer what was left unanswered on `platform` when the bot ended before, and say how many messages that were.

        Called once the platform can be written to. Returns when all of them are answered.
        """
        since = self._began_at - timedelta(seconds=self._options.resume_s)
        owed = [one for one in await self._conversations.awaited(platform, since=since) if self._is_left_over(one)]
        jobs = []
        for _, group in groupby(owed, key=lambda one: (one.key.room, one.turn.id)):
            rows = list(group)
            if job := await self._job_again(rows, open_channel(rows[0].key.room, rows[0].kind)):
                jobs.append(job)
            else:
                await self._settle(rows[0].key, rows[0].turn.id, [row.persona_id for row in rows])
        await asyncio.gather(*(self._run_again(job) for job in jobs))
        return len(jobs)

    async def drain(self, drain_s: float) -> bool:
        """Take no new messages, give those that came before `drain_s` seconds, and say whether all were answered."""
        self._is_closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nothing_to_do.wait(), drain_s)
        return self._nothing_to_do.is_set()

    async def aclose(self) -> None:
        """Give up what is done beside replies, such as an emoji under a message."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    @contextlib.contextmanager
    def _awaited(self, *, is_late: bool = False) -> Iterator[None]:
        """What is done inside is waited for by `drain`."""
        self._num_awaited += not is_late
        if self._num_awaited:
            self._nothing_to_do.clear()
        try:
            yield
        finally:
            self._num_awaited -= not is_late
            if not self._num_awaited:
                self._nothing_to_do.set()

    async def _run(self, job: _Job) -> None:
        """Wait for the turn of `job`, and answer it. What goes wrong is told here, where it is known what was shown."""
        tag = job.tag
        if tag is not None:
            self._jobs[tag] = job
        try:
            answering = partial(self._answer_or_explain, job)
            is_done = await self._replies.run(job.lane, answering, tag=tag, person=job.person)
        finally:
            if tag is not None and self._jobs.get(tag) is job:
                del self._jobs[tag]
        if not is_done and not job.is_taken_back:
            await self._owe_nothing(job)  # nobody wants it any more, and least of all after a restart

    async def _answer_or_explain(self, job: _Job) -> None:
        try:
            await self._answer(job)
        except EngineClosing as error:
            # The reply is still owed: the next start gives it, in the place of what is said now.
            _log_expected(error, job.stage.room, job.message_id)
            if self._is_closing and job.stream is not None and job.stream.text_to_remember:
                return  # it goes on where it was broken off
            message_ids = await self._tell(
                job.channel, BACK_SOON, job.reply_to, room=job.stage.room, instead_of=_notice_of(job)
            )
            if job.turn is not None and job.current is not None:
                await self._note_shown(job.key, job.turn.id, job.current.id, message_ids)
        except (BotError, EngineError) as error:
            _log_expected(error, job.stage.room, job.message_id)
            self._count_refused(job.stage.room, error)
            await self._apologise(job, _explain(error))
        except Exception:
            logger.exception("message %s in %s could not be answered", job.message_id, job.stage.room)
            await self._apologise(job, BROKEN)
        else:
            if self._counting is not None:
                self._counting.answered(job.stage.room.platform, time.monotonic() - job.began_at)

    async def _apologise(self, job: _Job, text: str) -> None:
        """Tell why there is no reply; with that, none is owed any more."""
        await self._tell(job.channel, text, job.reply_to, room=job.stage.room, instead_of=_notice_of(job))
        await self._owe_nothing(job)

    async def _owe_nothing(self, job: _Job) -> None:
        if job.turn is not None:
            for turn_id in (job.turn.id, *job.merged):
                with contextlib.suppress(StoreError):
                    await self._settle(job.key, turn_id, [persona.id for persona in job.personas])

    async def _settle(self, key: ConversationKey, turn_id: int, persona_ids: Iterable[str]) -> None:
        for persona_id in persona_ids:
            await self._conversations.settle(self._today(key), turn_id, persona_id)

    async def _tell(
        self,
        channel: ReplyChannel,
        text: str,
        reply_to: str | None,
        *,
        room: Room,
        instead_of: str | None = None,
    ) -> tuple[str, ...]:
        """Tell people something beside what personas say. The messages in which it is told."""
        try:
            return await send_text(channel, text, reply_to=reply_to, pacing=self._options.pacing, instead_of=instead_of)
        except Exception:
            logger.exception("nobody in %s could be told: %s", room, text)
            return ()

    async def _accept(self, message: IncomingMessage, channel: ReplyChannel, *, is_late: bool) -> _Job | None:
        """Decide who answers, and remember the message. `None` where nobody answers, or it was answered before.

        One that `is_late` came after the bot was told to end.
        """
        if message.author.is_bot or self._is_too_old(message):
            return None
        stage, personas = await self._hearing.addressees(message)
        if stage is None or not personas:
            return None
        if is_late:
            raise _Closing(RESTARTING)
        job = _Job(
            stage,
            personas,
            message.kind,
            message.author,
            _reply_to(message),
            message.message_id,
            channel,
            turn=None,
            message=message,
        )
        if self._superseded(job) is None and self._replies.is_full(job.lane, job.person):
            num_inside = len(self._replies.waiting(job.lane)) + 1  # with the one that is being answered
            raise _QueueFull(
                f"{num_inside} messages wait for {personas[0].name} already. "
                "Please wait for the answers, then send it again."
            )
        if stage.notice is not None and stage.main in personas:
            await self._rooms.choose(message.room, stage.main.id)
            job.notices = (stage.notice,)
        pictures, refusals = await self._hearing.pictures(message, channel)
        text = await self._hearing.text(stage, personas[0], message)
        if not text and not pictures:
            if refusals:
                raise MediaError("\n".join(refusals))
            return job
        turn = NewTurn(Role.USER, text, message.author, (message.message_id,), pictures)
        awaited = tuple(persona.id for persona in personas)
        job.is_first = await self._is_to_be_greeted(job)
        job.turn = await self._conversations.append(job.key, turn, awaited=awaited, kind=message.kind)
        if job.turn is None:
            return None
        job.notices = (*job.notices, *refusals)
        if self._counting is not None:
            self._counting.accepted(message.room.platform)
        await self._take_place(job)
        return job

    async def _is_to_be_greeted(self, job: _Job) -> bool:
        if job.kind is not ChatKind.DIRECT or job.stage.room.platform not in self._options.greeting:
            return False
        return not await self._conversations.recent(job.key, max_turns=1)

    def _is_too_old(self, message: IncomingMessage) -> bool:
        """Whether nobody expects an answer any more: the bot was away, and the platform kept the message for it."""
        if message.sent_at is None:
            return False
        age_s = (datetime.now(UTC) - message.sent_at).total_seconds()
        # Clocks differ, and a platform may be slow.
        if age_s <= max(self._options.resume_s, MIN_PATIENCE_S):
            return False
        logger.info("message %s in %s is %.0f s old: it stays unanswered", message.message_id, message.room, age_s)
        return True

    def _superseded(self, job: _Job) -> _Job | None:
        """The message of the same person to the same personas that waits still, and can be answered together."""
        if not self._options.merge_waiting:
            return None
        for tag in reversed(self._replies.waiting(job.lane)):
            waiting = self._jobs.get(tag) if isinstance(tag, int) else None
            if waiting is not None and waiting.author.user_id == job.author.user_id:
                return waiting if waiting.personas == job.personas and not waiting.shown else None
        return None

    async def _take_place(self, job: _Job) -> None:
        """Let `job` be answered together with the one that it supersedes."""
        earlier = self._superseded(job)
        if earlier is None or earlier.turn is None:
            return
        job.merged = (*earlier.merged, earlier.turn.id)
        job.notices = (*earlier.notices, *job.notices)
        job.superseded, earlier.is_taken_back = earlier, True
        await self._replies.cancel(job.lane, earlier.turn.id)

    async def _answer(self, job: _Job) -> None:
        for notice in job.notices:
            await self._tell(job.channel, notice, job.reply_to, room=job.stage.room)
        if job.turn is None:
            if not await self._greet(job):
                await self._tell(job.channel, NOTHING_SAID, job.reply_to, room=job.stage.room)
            return
        if job.is_first and await self._greet_first(job, job.turn):
            return
        replies: list[SpokenTurn] = []
        given = await self._given_before(job)
        for persona in job.personas:
            question = await self._conversations.turn(job.key, job.turn.id)
            if question is None:  # it was deleted meanwhile
                return
            reply = await self._reply(job, persona, SpokenTurn(job.key.persona_id, question), followed_by=given)
            if reply is not None:
                replies.append(reply)
                given.append(reply.turn.id)
        if replies:
            await self._exchange(job, replies)

    async def _given_before(self, job: _Job) -> list[int]:
        """The replies to `job` that others gave before a restart."""
        if job.kept_with is None or job.turn is None:
            return []
        return [turn_id for _, turn_id in await self._conversations.replies_to(job.stage.room, job.turn.id)]

    async def _reply(
        self, job: _Job, persona: Persona, question: SpokenTurn, *, followed_by: Sequence[int] = ()
    ) -> SpokenTurn | None:
        """Let `persona` reply to `question`, after the replies `followed_by` of others: the reply, if there is one."""
        job.current = persona
        stage, key = job.stage, ConversationKey(job.stage.room, persona.id)
        asked_key = ConversationKey(stage.room, question.persona_id)
        heard = await self._dialogue.heard(stage, persona)
        told = self._dialogue.told(heard, question, together_with=job.merged, followed_by=followed_by)
        prepared = await self._dialogue.prepare(stage, persona, job.kind, told, asker=job.author)
        is_to_person = question.turn.author is not None
        channel = self.stages.speaking(job.channel, stage, persona)
        stream = job.stream = ReplyStream(
            channel,
            reply_to=job.reply_to if is_to_person else None,
            pacing=self._options.pacing,
            instead_of=job.shown.pop(persona.id, ()),
            controls=self._controls(stage, job.kind),
            name=_name_of_reply(question.turn, persona),
            on_shown=partial(self._note_shown, asked_key, question.turn.id, persona.id) if is_to_person else None,
        )
        reply: StoredTurn | None = None
        is_left = is_to_person and stage.room.platform in self._options.resumed
        try:
            names = self._dialogue.names(stage, persona, job.author)
            await stream.deliver(without_labels(self._engine.generate(prepared.request), names))
            is_left = False
        except PromptTooLong as error:
            if not prepared.report.has_large_persona:
                raise
            # Whoever wrote a few words is not to be told to write fewer.
            raise PersonaError(TOO_LARGE.format(name=persona.name)) from error
        finally:
            # Also what was broken off: people have seen it. But when the bot ends, the next start ends the reply.
            if not (is_left and self._is_closing):
                origin = ReplyOrigin(question.turn.id, persona.digest())
                settles = job.merged if is_to_person else ()
                reply = await self._remember(
                    key, stream.text_to_remember, stream.message_ids, origin=origin, settles=settles
                )
            if question.turn.attachments and self._on_pictures is not None:
                self._on_pictures(question.turn.attachments)
        if not stream.is_delivered and self._counting is not None:
            self._counting.refused(stage.room.platform, "Undelivered")
        if reply is None:
            if is_to_person:
                for turn_id in (question.turn.id, *job.merged):
                    await self._settle(asked_key, turn_id, [persona.id])
            return None
        self._move_controls(job, channel, stream.message_ids[-1:])
        self._show_expression(job, channel, persona, reply.text)
        return SpokenTurn(persona.id, reply)

    async def _exchange(self, job: _Job, replies: Sequence[SpokenTurn]) -> None:
        """Let the personas of the room talk to each other for a while. Whoever else waits comes first."""
        stage = job.stage
        max_depth = stage.settings.max_exchange
        max_depth = self._options.max_exchange if max_depth is None else max_depth
        spoken, already = replies[-1], [reply.persona_id for reply in replies]
        for depth in range(max_depth):
            if not stage.is_shared or self._replies.waiting(job.lane) or self._is_closing:
                return
            speaker = self.stages.persona(spoken.persona_id)
            following = speaker and who_speaks_next(
                spoken.turn.text,
                speaker,
                stage.cast,
                depth=depth,
                max_depth=max_depth,
                already=already,
                settings=stage.settings,
                roll=self._roll,
                message=job.message,
                now=self._hearing.now(),
            )
            reply = await self._reply(job, following, spoken) if following else None
            if reply is None:
                return
            spoken = reply
            already.append(reply.persona_id)

    async def _greet(self, job: _Job, *, answered: StoredTurn | None = None) -> bool:
        """Say a greeting, be it as the answer to a turn. Whether there is one."""
        persona, is_group = job.personas[0], job.kind is ChatKind.GROUP
        name, conversation = job.author.display_name, conversation_of(job.key)
        greetings = greetings_for(
            persona, is_group=is_group, user_name=name, conversation=conversation, now=self._dialogue.now()
        )
        if not greetings:
            return False
        channel = self.stages.speaking(job.channel, job.stage, persona)
        message_ids = await send_text(channel, greetings[0], reply_to=job.reply_to, pacing=self._options.pacing)
        origin = unasked(persona) if answered is None else ReplyOrigin(answered.id, persona.digest())
        await self._remember(job.key, greetings[0], message_ids, origin=origin)
        return True

    async def _greet_first(self, job: _Job, turn: StoredTurn) -> bool:
        """Greet who writes for the first time. Whether that answers all they said."""
        is_answer = not turn.attachments and is_hello(turn.text)
        return await self._greet(job, answered=turn if is_answer else None) and is_answer

    async def _remember(
        self,
        key: ConversationKey,
        text: str,
        message_ids: tuple[str, ...],
        *,
        origin: ReplyOrigin | None = None,
        settles: Sequence[int] = (),
    ) -> StoredTurn | None:
        if not text:
            return None
        turn = NewTurn(Role.ASSISTANT, text, None, message_ids, origin=origin)
        return await self._conversations.append(self._today(key), turn, settles=settles)

    async def _note_shown(
        self, key: ConversationKey, turn_id: int, persona_id: str, message_ids: tuple[str, ...]
    ) -> None:
        """So that a reply that a crash breaks off is gone on with, not given twice."""
        try:
            await self._conversations.note_shown(self._today(key), turn_id, persona_id, message_ids)
        except StoreError as error:
            logger.error("it could not be noted where a reply is shown: %s", error)

    # --- what is around a reply

    def has_controls(self, stage: Stage, kind: ChatKind) -> bool:
        """Whether replies in that room have buttons."""
        is_wanted = stage.settings.has_controls
        return kind in self._options.has_controls if is_wanted is None else is_wanted

    def _controls(self, stage: Stage, kind: ChatKind) -> tuple[Control, ...]:
        """The buttons of a new reply."""
        return reply_controls(has_ratings=self._has_ratings) if self.has_controls(stage, kind) else ()

    def _note_last(self, room: Room, last: tuple[ReplyChannel, str] | None) -> None:
        """The last reply of a room is another one now, and has the buttons; or there is none any more."""
        self._controlled.pop(room, None)
        if last is not None:
            self._controlled[room] = last

    def _move_controls(self, job: _Job, channel: ReplyChannel, last_id: tuple[str, ...]) -> None:
        """Only the last reply of a room has buttons."""
        if not last_id or not self._controls(job.stage, job.kind):
            return
        before = self._controlled.pop(job.stage.room, None)
        self._controlled[job.stage.room] = (channel, last_id[0])
        while len(self._controlled) > MAX_ROOMS_WITH_CONTROLS:
            del self._controlled[next(iter(self._controlled))]
        if before is not None and before[1] != last_id[0]:
            self._in_background(_without_controls(*before))

    def _show_expression(self, job: _Job, channel: ReplyChannel, persona: Persona, text: str) -> None:
        found = expression_for(text, persona) if persona.expressions else None
        if found is None:
            return
        _, expression = found
        sticker = self._library.sticker(persona, expression)
        self._in_background(_express(channel, job.message_id, expression.reaction, sticker))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside everything else. It is no part of a reply: what comes of it, nobody waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- what changes afterwards

    async def handle_edit(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        """What was said reads differently now: so does what is remembered, and the last reply follows."""
        with self._awaited():
            try:
                async with self._arrivals.hold(message.room):
                    edited = await self._rewrite(message)
                if edited is not None:
                    stage, key, turn = edited
                    await self.steering.follow(stage, key, turn, kind=message.kind, channel=channel)
            except (BotError, EngineError) as error:
                _log_expected(error, message.room, message.message_id)
            except Exception:
                logger.exception("an edit of message %s in %s was lost", message.message_id, message.room)

    async def handle_deletion(self, room: Room, message_ids: tuple[str, ...], channel: ReplyChannel) -> None:
        """What was deleted is forgotten, and so are the replies to it. What it superseded is answered after all."""
        with self._awaited():
            try:
                stopped = [await self._stop_message(room, message_id) for message_id in message_ids]
                for message_id in message_ids:
                    await self._forget_message(room, message_id, channel)
                for job in stopped:
                    if job is not None and (superseded := await self._still_asked(job)) is not None:
                        await self._run(superseded)
            except (BotError, EngineError) as error:
                _log_expected(error, room, ", ".join(message_ids))
            except Exception:
                logger.exception("deleted messages in %s were not forgotten: %s", room, ", ".join(message_ids))

    async def handle_reaction(self, reaction: IncomingReaction, channel: ReplyChannel) -> None:
        """An emoji under a reply may be a wish."""
        with self._awaited():
            try:
                await self.steering.react(reaction, channel)
            except (BotError, EngineError) as error:
                _log_expected(error, reaction.room, reaction.message_id)
            except Exception:
                logger.exception("a reaction in %s could not be handled", reaction.room)

    async def handle_move(self, platform: str, old_chat_id: str, new_chat_id: str) -> None:
        """A group goes on under another id, with everything that is remembered."""
        try:
            await self._rooms.move(platform, old_chat_id, new_chat_id)
            # What is being said there, or waits to be, belongs to the new room as well.
            self._moved[platform, old_chat_id] = new_chat_id
            for job in self._jobs.values():
                job.move(self._today(job.key))
        except BotError as error:
            logger.error("what is kept of chat %s was not moved to %s: %s", old_chat_id, new_chat_id, error)
        except Exception:
            logger.exception("what is kept of chat %s was not moved to %s", old_chat_id, new_chat_id)

    def _today(self, key: ConversationKey) -> ConversationKey:
        """That conversation where it is kept now: its chat may have moved in the middle of a reply."""
        chat_id = self._moved.get((key.room.platform, key.room.chat_id))
        return key if chat_id is None else replace(key, room=replace(key.room, chat_id=chat_id))

    async def _rewrite(self, message: IncomingMessage) -> tuple[Stage, ConversationKey, StoredTurn] | None:
        """Keep the new words of a message, where it is kept and they are new."""
        found = await self._conversations.turn_of(message.room, message.message_id)
        stage = await self.stages.of(message.room) if found is not None else None
        if found is None or stage is None:
            return None
        key, turn_id = found
        turn, persona = await self._conversations.turn(key, turn_id), self.stages.persona(key.persona_id)
        if turn is None or turn.author is None or turn.author.user_id != message.author.user_id:
            return None
        text = await self._hearing.text(stage, persona or stage.main, message)
        if text == turn.text or not (text or turn.attachments):
            return None
        await self._conversations.rewrite(key, turn_id, text)
        return stage, key, turn

    async def _stop_message(self, room: Room, message_id: str) -> _Job | None:
        """Say nothing more about that message; what was about to be said, if anything was."""
        async with self._arrivals.hold(room):
            found = await self._conversations.turn_of(room, message_id)
            job = self._jobs.get(found[1]) if found is not None else None
            if job is not None and job.tag is not None:
                job.is_taken_back = True
                await self._replies.cancel(job.lane, job.tag)
            return job

    async def _forget_message(self, room: Room, message_id: str, channel: ReplyChannel) -> None:
        """Forget that message when whatever else runs in the room has ended.

        A platform also tells of messages that the bot itself took away: once that has ended, they lead to no turn.
        """
        found = await self._conversations.turn_of(room, message_id)
        stage = await self.stages.of(room) if found is not None else None
        if found is None or stage is None:
            return
        lane = stage.lane(found[0].persona_id)
        await self._replies.run(lane, partial(self._forget_now, stage, message_id, channel))

    async def _still_asked(self, stopped: _Job) -> _Job | None:
        """The last message that waited for the same replies as the one that was deleted, and is there still."""
        job = stopped.superseded
        while job is not None and job.turn is not None:
            if await self._conversations.turn(job.key, job.turn.id) is not None:
                job.is_taken_back = False
                return job
            job = job.superseded
        return None

    async def _forget_now(self, stage: Stage, message_id: str, channel: ReplyChannel) -> None:
        found = await self._conversations.turn_of(stage.room, message_id)
        turn = await self._conversations.turn(*found) if found is not None else None
        if found is None or turn is None:
            return
        if turn.role is Role.USER:
            await self.steering.forget_exchange(stage, found[0], turn, channel=channel)
        else:
            await self.steering.forget_reply(stage, *found, channel=channel)

    # --- after a restart

    def _is_left_over(self, owed: AwaitedReply) -> bool:
        """Whether that was asked before this process began, and is not being answered."""
        return owed.turn.created_at < self._began_at and owed.turn.id not in self._jobs

    async def _job_again(self, rows: Sequence[AwaitedReply], channel: ReplyChannel | None) -> _Job | None:
        """The message of `rows` as one that waits; `None` where nobody can answer it any more."""
        first = rows[0]
        stage = await self.stages.of(first.key.room)
        owing = (self.stages.persona(row.persona_id) for row in rows)
        personas = tuple(persona for persona in owing if persona is not None)
        if stage is None or channel is None or not personas or first.turn.author is None:
            logger.warning("a message in %s stays unanswered: nobody is there for it any more", first.key.room)
            return None
        return _Job(
            stage,
            personas,
            first.kind,
            first.turn.author,
            (first.message_id or None) if first.kind is ChatKind.GROUP else None,  # unknown where the group has moved
            first.message_id,
            channel,
            first.turn,
            kept_with=first.key,
            shown={row.persona_id: row.message_ids for row in rows},
        )

    async def _run_again(self, job: _Job) -> None:
        with self._awaited():
            try:
                await self._run(job)
            except Exception:
                logger.exception("message %s in %s could not be answered again", job.message_id, job.stage.room)

    def _count_refused(self, room: Room, error: Exception) -> None:
        if self._counting is not None:
            self._counting.refused(room.platform, type(error).__name__.removeprefix("_"))


def _name_of_reply(question: StoredTurn, persona: Persona) -> str:
    """The same for every try of one reply, also after a restart; short enough for what Discord calls a nonce."""
    what = f"{question.id}/{question.created_at.isoformat()}/{persona.id}"
    return hashlib.blake2b(what.encode(), digest_size=9).hexdigest()


def _notice_of(job: _Job) -> str | None:
    """The message that says where `job` waits, if one does."""
    return job.stream.notice_id if job.stream is not None else None


def _reply_to(message: IncomingMessage) -> str | None:
    """The message that an answer quotes: in a group one has to see who is meant."""
    if message.kind is ChatKind.DIRECT:
        return None
    if message.is_summons:
        return message.reply_to.message_id if message.reply_to is not None else None
    return message.message_id


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


def _log_expected(error: BotError | EngineError, room: Room, message_id: str) -> None:
    is_senders_matter = isinstance(
        error, (MediaError, CommandError, _QueueFull, _Closing, EngineBusy, EngineClosing, PromptTooLong)
    )
    logger.log(logging.INFO if is_senders_matter else logging.ERROR, "message %s in %s: %s", message_id, room, error)


async def _without_controls(channel: ReplyChannel, message_id: str) -> None:
    try:
        await channel.ready()
        await channel.show_controls(message_id, ())
    except DeliveryError as error:
        logger.debug("buttons could not be taken away: %s", error)


async def _express(channel: ReplyChannel, message_id: str, reaction: str | None, sticker: Path | None) -> None:
    """Show a feeling, as far as the platform has ways to."""
    try:
        if reaction is not None and message_id:
            await channel.react(message_id, reaction)
        if sticker is not None:
            await channel.ready()
            await channel.send_sticker(sticker)
    except DeliveryError as error:
        logger.info("an expression could not be shown: %s", error)
