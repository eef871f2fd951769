"""The straight line, from a message to a remembered reply. Every test runs on the store in memory and on SQLite."""

import asyncio
import contextlib
import io
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image

from bot.chat import (
    ASKED_ENOUGH,
    BACK_SOON,
    BROKEN,
    NOT_GENERATED,
    NOT_KEPT,
    RESTARTING,
    TOO_BUSY,
    TOO_LARGE,
    TOO_LONG,
    ChatService,
)
from bot.errors import DeliveryError, MediaError, PersonaError, StoreError
from bot.hearing import NO_PERSONA
from bot.replies import EMPTY_REPLY
from bot.store.repositories import Conversations
from bot.types import Author, ConversationKey, IncomingFile, NewTurn, RepliedMessage, Room
from engine.backends.echo import EchoEngine
from engine.errors import (
    AskerBusy,
    DeviceError,
    EngineBusy,
    EngineClosing,
    EngineError,
    PromptTooLong,
    ServerError,
)
from engine.persona import Triggers
from engine.types import Asker, GenerationRequest, QueuePlace, Role
from tests.bot.chatting import BOB, OPTIONS, ROOM, Stage, in_group, message, picture_file
from tests.fakes.adapter import ANN, BOT, FakeChannel, a_file
from tests.fakes.engine import ScriptedEngine, Step
from tests.fakes.personas import MemoryLibrary, a_persona
from tests.fakes.store import MemoryAttachments, MemoryConversations, MemoryRooms

# --- one message


async def test_a_message_is_answered_and_both_are_remembered(stage: Stage) -> None:
    incoming = message("Hello")
    assert await stage.say(incoming) == ["You said: Hello"]
    assert await stage.said() == ["Hello", "You said: Hello"]
    assert await stage.conversations.speaker(ROOM, stage.channel.sent[0].id) == "luna"
    assert stage.channel.sent[0].reply_to is None
    assert stage.engine.requests[0].persona.id == "luna"
    assert "Luna" in stage.engine.requests[0].system_prompt


async def test_the_message_is_safe_before_the_engine_begins(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.script(gate, "Yes.")
    task = asyncio.create_task(stage.say(message("Hello")))
    async with asyncio.timeout(5):
        while not stage.engine.requests:
            await asyncio.sleep(0.005)
    assert await stage.said() == ["Hello"]
    gate.set()
    assert await task == ["Yes."]


async def test_a_message_that_comes_twice_is_answered_once(stage: Stage) -> None:
    incoming = message("Hello")
    await stage.say(incoming)
    assert await stage.say(incoming) == []
    assert len(stage.engine.requests) == 1


async def test_the_conversation_goes_on_after_a_restart(stage: Stage) -> None:
    await stage.say(message("One"))
    stage.with_options()
    await stage.say(message("Two"))
    assert stage.heard() == ["One", "You said: One", "Two"]


async def test_history_is_bounded(stage: Stage) -> None:
    stage.with_options(max_history_turns=3)
    for text in ("One", "Two", "Three"):
        await stage.say(message(text))
    assert stage.heard() == ["Two", "You said: Two", "Three"]


async def test_rooms_and_personas_share_nothing(stage: Stage) -> None:
    await stage.say(message("Secret"))
    await stage.say(message("Hi", room=Room("fake", "2")))
    assert stage.heard() == ["Hi"]
    await stage.chat.choose(ROOM, "max")
    await stage.say(message("Hi Max"))
    assert stage.heard() == ["Hi Max"]
    assert stage.engine.requests[-1].persona.id == "max"


async def test_a_group_knows_who_speaks(stage: Stage) -> None:
    await stage.say(in_group("Hi"))
    await stage.say(in_group("Me too", author=BOB))
    first, _, last = stage.heard()
    assert first == "Ann: Hi"
    assert last.startswith("Bob")
    assert last.endswith(": Me too")
    assert "\n" not in last
    assert stage.channel.sent[0].reply_to is not None


async def test_macros_and_the_echo_engine_work_together(stage: Stage) -> None:
    stage.engine = EchoEngine()
    stage.with_options()
    assert await stage.say(message("Hi", files=(picture_file(),))) == ["Luna heard (1 picture): Hi"]


# --- who answers


async def test_bots_and_talk_among_people_are_left_alone(stage: Stage) -> None:
    assert await stage.say(message(author=BOT)) == []
    assert await stage.say(in_group("the weather", mentions_bot=False)) == []
    assert await stage.said() == []


async def test_a_name_is_enough(stage: Stage) -> None:
    assert await stage.say(in_group("hey luna!", mentions_bot=False)) == ["You said: Ann: hey luna!"]


async def test_a_reply_goes_to_the_persona_that_spoke(stage: Stage) -> None:
    await stage.say(in_group("Hi"))
    sent = stage.channel.sent[0]
    await stage.chat.choose(ROOM, "max")
    replied = RepliedMessage(sent.id, BOT, sent.text, is_from_bot=True)
    assert await stage.say(in_group("And?", mentions_bot=False, reply_to=replied))
    assert stage.engine.requests[-1].persona.id == "luna"
    assert stage.heard()[-1] == "Ann: And?"


async def test_a_reply_to_a_persona_that_is_gone_goes_to_the_chosen_one(stage: Stage) -> None:
    await stage.say(in_group("Hi"))
    sent = stage.channel.sent[0]
    await stage.chat.choose(ROOM, "max")
    stage.library.personas = [a_persona("Max")]
    replied = RepliedMessage(sent.id, BOT, sent.text, is_from_bot=True)
    await stage.say(in_group("And?", mentions_bot=False, reply_to=replied))
    assert stage.engine.requests[-1].persona.id == "max"


async def test_a_reply_to_one_persona_is_no_reply_to_another(stage: Stage) -> None:
    stage.library.personas = [a_persona("Luna", triggers=Triggers(reply=False)), a_persona("Max")]
    await stage.say(in_group("Hi"))
    sent = stage.channel.sent[0]
    await stage.chat.choose(ROOM, "max")
    replied = RepliedMessage(sent.id, BOT, sent.text, is_from_bot=True)
    assert await stage.say(in_group("And?", mentions_bot=False, reply_to=replied)) == []


async def test_a_reply_between_people_is_left_alone(stage: Stage) -> None:
    replied = RepliedMessage("m9", BOB, "Hi")
    assert await stage.say(in_group("And?", mentions_bot=False, reply_to=replied)) == []


async def test_a_persona_that_vanished_is_replaced_and_people_are_told_once(stage: Stage) -> None:
    await stage.chat.choose(ROOM, "max")
    stage.library.personas = [a_persona("Luna")]
    notice, reply = await stage.say(message("Hello"))
    assert "max" in notice
    assert "Luna" in notice
    assert reply == "You said: Hello"
    assert await stage.say(message("Again")) == ["You said: Again"]


async def test_without_any_persona_people_are_told_what_to_do(stage: Stage) -> None:
    stage.library.personas = []
    assert await stage.say(message()) == [NO_PERSONA]
    assert await stage.say(in_group()) == [NO_PERSONA]
    assert await stage.say(message(author=BOT)) == []
    assert await stage.say(in_group(mentions_bot=False)) == []
    with pytest.raises(PersonaError, match="commedia persona new"):
        await stage.chat.chosen(ROOM)


@pytest.mark.parametrize("default", [None, "nobody"])
async def test_without_a_default_the_first_by_name_answers(stage: Stage, default: str | None) -> None:
    stage.with_options(default_persona=default)
    stage.library.personas.append(a_persona("Adam"))
    assert await stage.chat.chosen(ROOM) == "adam"


async def test_an_empty_call_is_greeted(stage: Stage) -> None:
    assert await stage.say(in_group("  ")) == ["I am Luna, Ann."]
    assert await stage.said() == ["I am Luna, Ann."]
    assert await stage.conversations.speaker(ROOM, stage.channel.sent[0].id) == "luna"
    assert stage.engine.requests == []


# --- pictures and quotes


async def test_a_picture_reaches_the_engine_and_is_remembered(stage: Stage) -> None:
    await stage.say(message("", files=(picture_file(),)))
    (turn,) = stage.engine.requests[0].turns
    (image,) = turn.images
    assert Image.open(io.BytesIO(image.data)).size == (40, 30)
    assert await stage.chat.picture(ROOM, image.digest) == image.data
    with pytest.raises(MediaError, match="no such picture"):
        await stage.chat.picture(Room("fake", "2"), image.digest)
    await stage.say(message("And now?"))
    assert stage.engine.requests[-1].turns[0].images == (image,)


async def test_the_picture_of_the_message_replied_to_is_seen(stage: Stage) -> None:
    replied = RepliedMessage("m9", BOB, "my cat", files=(picture_file(),))
    await stage.say(in_group("What is it?", reply_to=replied))
    (turn,) = stage.engine.requests[0].turns
    assert len(turn.images) == 1
    assert "“my cat”" in turn.text
    assert turn.text.endswith("What is it?")


async def test_a_picture_of_its_own_comes_first(stage: Stage) -> None:
    replied = RepliedMessage("m9", BOB, "", files=(picture_file("blue"),))
    await stage.say(message("", files=(picture_file("red"),), reply_to=replied))
    await stage.say(message("", files=(picture_file("red"),)))
    first, second = stage.engine.requests
    assert first.turns[-1].images == second.turns[-1].images
    assert len(first.turns[-1].images) == 1


async def test_a_remembered_picture_is_not_downloaded_again(stage: Stage) -> None:
    async def fail(_max_bytes: int) -> bytes:
        raise AssertionError("downloaded again")

    shown = message("look", files=(picture_file(),))
    await stage.say(shown)
    replied = RepliedMessage(shown.message_id, ANN, "look", files=(IncomingFile("cat.png", None, None, fail),))
    assert await stage.say(message("What colour?", reply_to=replied)) == ["You said: What colour?"]
    assert len(stage.engine.requests[-1].turns[-1].images) == 1


async def test_words_in_the_conversation_are_not_quoted_again(stage: Stage) -> None:
    await stage.say(message("The  moon is\nbright"))
    await stage.say(message("Why?", reply_to=RepliedMessage("x", ANN, "The moon is bright")))
    assert stage.heard()[-1] == "Why?"
    await stage.say(message("Why?", reply_to=RepliedMessage("y", BOB, "Something\n new " + "x" * 999)))
    quoting = stage.heard()[-1]
    assert quoting.startswith("(replying to Bob")
    assert "“Something new x" in quoting
    assert len(quoting) < 400


async def test_short_words_are_quoted_though_others_contain_them(stage: Stage) -> None:
    await stage.say(message("I know the moon"))
    await stage.say(message("Why?", reply_to=RepliedMessage("x", BOB, "no")))
    assert "“no”" in stage.heard()[-1]


async def test_a_part_of_a_long_reply_is_not_quoted_again(stage: Stage) -> None:
    stage.script("The moon goes around the earth in a month. " * 9)
    await stage.say(message("Hello"))
    await stage.say(message("Why?", reply_to=RepliedMessage("x", BOT, "The moon goes around the earth in a month.")))
    assert stage.heard()[-1] == "Why?"


async def test_an_empty_call_on_words_is_about_them(stage: Stage) -> None:
    await stage.say(in_group("", reply_to=RepliedMessage("x", BOB, "Is the moon cheese?")))
    assert "Is the moon cheese?" in stage.heard()[-1]


async def test_a_summons_is_about_its_message_also_where_that_is_remembered(stage: Stage) -> None:
    said = "What is the best tea in the whole wide world?"
    await stage.say(in_group(said))
    about = RepliedMessage("said-0", ANN, said)
    for _ in range(2):
        await stage.say(in_group("", is_summons=True, mentions_bot=False, author=BOB, reply_to=about))
        assert said in stage.heard()[-1]
        assert stage.heard()[-1].startswith("Bob")


async def test_a_refused_picture_is_explained_and_not_answered(stage: Stage) -> None:
    (text,) = await stage.say(message("What is it?", files=(a_file(b"%PDF-1.7", name="bill.pdf"),)))
    assert "bill.pdf" in text
    assert "PDF" in text
    assert stage.engine.requests == []


async def test_the_good_pictures_are_seen_beside_a_refused_one(stage: Stage) -> None:
    notice, reply = await stage.say(message("Look", files=(a_file(b"", name="empty.png"), picture_file())))
    assert "empty.png" in notice
    assert reply == "You said: Look"
    assert len(stage.engine.requests[0].turns[0].images) == 1


async def test_a_refused_picture_of_another_message_does_not_stop_the_answer(stage: Stage) -> None:
    replied = RepliedMessage("m9", BOB, "my bill", files=(a_file(b"%PDF-1.7", name="bill.pdf"),))
    notice, reply = await stage.say(message("Oh dear", reply_to=replied))
    assert "bill.pdf" in notice
    assert reply.endswith("Oh dear")


async def test_too_many_pictures_are_left_out_with_a_word(stage: Stage) -> None:
    stage.with_options(max_pictures=2)
    colours = ("red", "blue", "lime", "teal", "pink")
    notice, _ = await stage.say(message("", files=tuple(picture_file(colour) for colour in colours)))
    assert "2 pictures" in notice
    assert "last 3" in notice
    assert len(stage.engine.requests[0].turns[0].images) == 2


async def test_pictures_in_history_are_bounded(stage: Stage) -> None:
    stage.with_options(max_history_pictures=2)
    for colour in ("red", "blue", "lime"):
        await stage.say(message(colour, files=(picture_file(colour),)))
    assert [len(turn.images) for turn in stage.engine.requests[-1].turns if turn.role is Role.USER] == [0, 1, 1]


async def test_all_pictures_of_the_message_itself_are_seen(stage: Stage) -> None:
    stage.with_options(max_history_pictures=1)
    await stage.say(message("", files=(picture_file("red"), picture_file("blue"))))
    assert len(stage.engine.requests[-1].turns[-1].images) == 2


async def test_an_earlier_picture_that_is_gone_does_not_stop_the_conversation(
    stage: Stage, monkeypatch, caplog
) -> None:
    await stage.say(message("One", files=(picture_file(),)))

    async def gone(_digest: str) -> bytes:
        raise StoreError("the file is gone; restore it")

    monkeypatch.setattr(stage.attachments, "read", gone)
    assert await stage.say(message("Two")) == ["You said: Two"]
    assert "the file is gone; restore it" in caplog.text


# --- side by side


async def test_conversations_run_side_by_side_and_each_in_order(stage: Stage) -> None:
    gate = asyncio.Event()

    def script(request: GenerationRequest) -> tuple[Step, ...]:
        text = request.turns[-1].text
        return (gate, f"Re: {text}") if text == "slow" else (f"Re: {text}",)

    stage.engine.script = script
    other = FakeChannel()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.chat.handle(message("slow"), stage.channel))
        tasks.create_task(stage.chat.handle(message("next"), stage.channel))
        await stage.chat.handle(message("fast", room=Room("fake", "2")), other)
        assert other.texts == ["Re: fast"]
        assert stage.channel.texts == []
        while len(await stage.said()) < 2:  # both are safe, though neither is answered
            await asyncio.sleep(0.005)
        gate.set()
    assert stage.channel.texts == ["Re: slow", "Re: next"]
    heard = [stage.heard(index) for index in range(3)]
    assert sorted(heard) == [["fast"], ["slow"], ["slow", "Re: slow", "next"]]


async def test_two_personas_of_a_room_answer_side_by_side(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.engine.script = lambda request: (gate, "L") if request.persona.id == "luna" else ("M",)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.chat.handle(message("Hi Luna"), stage.channel))
        while not stage.engine.requests:
            await asyncio.sleep(0.005)
        await stage.chat.choose(ROOM, "max")
        assert await stage.say(message("Hi Max")) == ["M"]
        gate.set()


async def test_messages_of_one_room_keep_their_order_of_arrival(stage: Stage) -> None:
    stage.with_options(max_waiting_messages=50)
    files = {0: (picture_file(),)}  # the first takes longest to load
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for number in range(12):
            tasks.create_task(stage.chat.handle(message(f"m{number}", files=files.get(number, ())), stage.channel))
    assert stage.channel.texts == [f"You said: m{number}" for number in range(12)]


async def test_too_many_waiting_messages_are_refused_in_words(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.script(gate, "Yes.")
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(stage.chat.handle(message("Hello"), stage.channel))
        await stage.channel.wait_until(lambda: bool(stage.channel.sent))
        assert "3 messages wait for Luna" in stage.channel.texts[0]
        gate.set()
    assert stage.channel.texts[1:] == ["Yes."] * 3


@pytest.mark.parametrize(("age_s", "is_answered"), [(60, True), (800, True), (1000, False)])
async def test_what_a_platform_kept_for_long_stays_unanswered(stage: Stage, age_s: float, is_answered: bool) -> None:
    sent_at = datetime.now(UTC) - timedelta(seconds=age_s)
    assert bool(await stage.say(message("Hello?", sent_at=sent_at))) is is_answered


async def test_a_flood_is_refused_once(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.script(gate, "Yes.")
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(9):
            tasks.create_task(stage.chat.handle(message("Hello"), stage.channel))
        await stage.channel.wait_until(lambda: bool(stage.channel.sent))
        await asyncio.sleep(0.05)
        assert len(stage.channel.sent) == 1, "one refusal for six messages"
        gate.set()
    assert stage.channel.texts[1:] == ["Yes."] * 3


async def test_nothing_is_left_behind(stage: Stage) -> None:
    for number in range(20):
        await stage.say(message("Hello", room=Room("fake", str(number))))
    assert len(stage.chat._arrivals) == 0
    assert len(stage.chat._replies) == 0


# --- stopping


async def test_stopping_remembers_what_was_shown(stage: Stage) -> None:
    stage.script("These are the first words.", asyncio.Event())
    task = asyncio.create_task(stage.chat.handle(message("Hello"), stage.channel))
    await stage.channel.wait_until(lambda: bool(stage.channel.sent))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.engine.num_running == 0
    assert await stage.said() == ["Hello", "These are the first words."]
    assert await stage.conversations.speaker(ROOM, stage.channel.sent[0].id) == "luna"


async def test_stopping_while_the_reply_is_being_remembered_keeps_it(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.script("These are the first words.", gate)
    task = asyncio.create_task(stage.chat.handle(message("Hello"), stage.channel))
    await stage.channel.wait_until(lambda: bool(stage.channel.sent))
    is_stored = isinstance(stage.conversations, Conversations)
    async with stage.conversations._database._writers if is_stored else contextlib.nullcontext():
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    while len(await stage.said()) < 2:
        await asyncio.sleep(0.005)
    assert await stage.said() == ["Hello", "These are the first words."]


async def test_stopping_before_the_first_word_remembers_no_reply(stage: Stage) -> None:
    stage.script(asyncio.Event())
    task = asyncio.create_task(stage.chat.handle(message("Hello"), stage.channel))
    while not stage.engine.num_running:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await stage.said() == ["Hello"]
    assert stage.channel.sent == []
    stage.script("Yes.")
    assert await stage.say(message("Again")) == ["Yes."]


async def test_starting_over_stops_the_reply_and_what_waits(stage: Stage) -> None:
    stage.script("These are the first words.", asyncio.Event())
    tasks = [asyncio.create_task(stage.chat.handle(message(text), stage.channel)) for text in ("One", "Two")]
    await stage.channel.wait_until(lambda: bool(stage.channel.sent))
    while len(await stage.said()) < 2:
        await asyncio.sleep(0.005)
    async with asyncio.timeout(5):
        await stage.chat.start_over(ROOM)
        await asyncio.gather(*tasks)
    assert await stage.said() == []
    assert stage.engine.num_running == 0
    assert len(stage.engine.requests) == 1
    assert [turn.text for turn in await stage.chat.history(ROOM)] == ["I am Luna, friend."]


# --- what goes wrong


@pytest.mark.parametrize(("words", "text"), [("Hello", TOO_LARGE.format(name="Luna")), ("Long. " * 3_000, TOO_LONG)])
async def test_what_is_too_long_is_the_persona_or_the_message(stage: Stage, caplog, words: str, text: str) -> None:
    stage.script(PromptTooLong("9000 tokens"))
    assert await stage.say(message(words)) == [text]
    assert [record.levelname for record in caplog.records] == (["ERROR"] if text != TOO_LONG else [])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DeviceError("CUDA is on fire; set engine.device"), NOT_GENERATED),
        (EngineBusy("64 requests wait"), TOO_BUSY),
        (RuntimeError("a bug"), BROKEN),
    ],
)
async def test_a_failing_engine_is_explained_and_the_message_kept(
    stage: Stage, caplog, error: Exception, text: str
) -> None:
    caplog.set_level(logging.INFO)
    stage.script(error)
    assert await stage.say(message("Hello")) == [text]
    assert await stage.said() == ["Hello"]
    assert str(error) in caplog.text
    stage.script("Yes.")
    assert await stage.say(message("Again")) == ["Yes."]


async def test_half_a_reply_is_kept_when_the_engine_fails(stage: Stage) -> None:
    stage.script("Half a", DeviceError("gone"))
    assert await stage.say(message("Hello")) == ["Half a", NOT_GENERATED]
    assert await stage.said() == ["Hello", "Half a"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (EngineBusy("full"), TOO_BUSY),
        (AskerBusy("enough"), ASKED_ENOUGH),
        (EngineClosing("closing"), BACK_SOON),
        (ServerError("it vanished"), NOT_GENERATED),
    ],
)
async def test_a_place_in_line_gives_way_to_what_went_wrong(stage: Stage, error: EngineError, told: str) -> None:
    stage.with_options(pacing=replace(OPTIONS.pacing, place_from_s=0.01))
    stage.script(QueuePlace(2, 30.0), 0.2, error)
    assert await stage.say(message()) == [told]
    assert stage.channel.sent[0].texts == ["You are 2nd in line, about 30 s.", told]
    assert await stage.said() == ["Hello"]


async def test_a_place_in_line_is_never_remembered(stage: Stage) -> None:
    stage.with_options(pacing=replace(OPTIONS.pacing, place_from_s=0.01))
    stage.script(QueuePlace(2, 30.0), 0.2, "Here I am.")
    assert await stage.say(message()) == ["Here I am."]
    assert len(stage.channel.sent[0].texts) > 1
    assert await stage.said() == ["Hello", "Here I am."]
    assert await stage.conversations.speaker(ROOM, stage.channel.sent[0].id) == "luna"


async def test_a_bug_while_in_line_replaces_the_place(stage: Stage, caplog) -> None:
    stage.with_options(pacing=replace(OPTIONS.pacing, place_from_s=0.01))
    stage.script(QueuePlace(2, 30.0), 0.2, ZeroDivisionError("a bug"))
    assert await stage.say(message()) == [BROKEN]
    assert "a bug" in caplog.text


async def test_the_engine_knows_for_whom_it_answers(stage: Stage) -> None:
    thread = Room("fake", "7", "9")
    ben = Author("fake", "ben", "Ann")
    await stage.say(message())
    await stage.say(message(room=thread))
    await stage.say(message(author=ben))
    askers = [request.asker for request in stage.engine.requests]
    assert askers == [
        Asker("fake/ann", "fake/1", "fake/1/luna"),
        Asker("fake/ann", "fake/7/9", "fake/7/9/luna"),
        Asker("fake/ben", "fake/1", "fake/1/luna"),
    ]


async def test_draining_answers_what_came_and_takes_nothing_new(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.script(gate, "Yes.")
    early = [asyncio.create_task(stage.chat.handle(message(text), stage.channel)) for text in ("One", "Two")]
    await asyncio.sleep(0)
    draining = asyncio.create_task(stage.chat.drain(10))
    await asyncio.sleep(0)
    assert await stage.say(message("Three")) == [RESTARTING]
    assert await stage.say(in_group("talk among people", mentions_bot=False)) == []
    assert not draining.done()
    gate.set()
    async with asyncio.timeout(5):
        assert await draining
        await asyncio.gather(*early)
    assert "Three" not in await stage.said()
    assert (await stage.said()).count("Yes.") == 2


async def test_draining_ends_in_time(stage: Stage) -> None:
    stage.script(asyncio.Event())
    task = asyncio.create_task(stage.chat.handle(message(), stage.channel))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        assert not await stage.chat.drain(0.05)
    task.cancel()


async def test_a_store_that_fails_is_explained(stage: Stage, monkeypatch, caplog) -> None:
    async def full(_key: ConversationKey, _turn: NewTurn, **_changes: object) -> None:
        raise StoreError("the disk is full; free some space")

    monkeypatch.setattr(stage.conversations, "append", full)
    assert await stage.say(message("Hello")) == [NOT_KEPT]
    assert stage.engine.requests == []
    assert "the disk is full; free some space" in caplog.text


async def test_a_bug_is_told_and_logged_with_its_trace(stage: Stage, monkeypatch, caplog) -> None:
    async def broken(_room: Room) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(stage.rooms, "persona_and_settings", broken)
    assert await stage.say(message("Hello")) == [BROKEN]
    assert "Traceback" in caplog.text


async def test_a_dead_channel_keeps_the_reply(stage: Stage) -> None:
    stage.channel.failures = [DeliveryError("gone")] * 100
    assert await stage.say(message("Hello")) == []
    assert await stage.said() == ["Hello", "You said: Hello"]


async def test_even_a_broken_channel_raises_nothing(stage: Stage, monkeypatch, caplog) -> None:
    async def broken(_channel: FakeChannel, _text: str, *, reply_to: str | None = None) -> str:
        raise KeyError("result")

    monkeypatch.setattr(FakeChannel, "send", broken)
    await stage.chat.handle(message("Hello"), stage.channel)
    assert "nobody in" in caplog.text


async def test_an_empty_reply_is_not_remembered(stage: Stage) -> None:
    stage.script("  ")
    assert await stage.say(message("Hello")) == [EMPTY_REPLY]
    assert await stage.said() == ["Hello"]


# --- showing conversations


async def test_a_new_conversation_begins_with_a_greeting_once(stage: Stage) -> None:
    first, second = await asyncio.gather(stage.chat.history(ROOM), stage.chat.history(ROOM))
    assert [turn.text for turn in first] == ["I am Luna, friend."]
    assert first == second
    await stage.say(message("Hello"))
    assert stage.heard() == ["I am Luna, friend.", "Hello"]
    assert len(await stage.chat.history(ROOM, max_turns=2)) == 2


async def test_each_persona_keeps_its_conversation(stage: Stage) -> None:
    await stage.say(message("Hello"))
    await stage.chat.choose(ROOM, "max")
    assert await stage.chat.chosen(ROOM) == "max"
    assert [turn.text for turn in await stage.chat.history(ROOM)] == ["I am Max, friend."]
    await stage.chat.choose(ROOM, "luna")
    assert [turn.text for turn in await stage.chat.history(ROOM)] == ["Hello", "You said: Hello"]
    with pytest.raises(PersonaError):
        await stage.chat.choose(ROOM, "nobody")


def test_personas_are_listed_by_name() -> None:
    library = MemoryLibrary([a_persona("Max"), a_persona("Luna")])
    chat = ChatService(ScriptedEngine(), library, MemoryConversations(), MemoryRooms(), MemoryAttachments())
    assert [card.name for card in chat.personas()] == ["Luna", "Max"]
