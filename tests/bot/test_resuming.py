"""What is left unanswered when the bot ends is answered after a restart: once, and in the right place."""

import asyncio
from dataclasses import replace

import pytest

from bot.commands import CommandCall
from bot.rooms import RoomSettings
from bot.types import ChatKind, ConversationKey, Room
from engine.errors import DeviceError, EngineClosing
from tests.bot.chatting import BOB, LUNA, ROOM, Stage, in_group, message
from tests.fakes.adapter import ANN, FakeChannel


async def killed(stage: Stage, *said, until_shown: int = 0) -> None:
    """The bot dies while it answers: nothing that it would do in the end is done."""
    tasks = [asyncio.create_task(stage.chat.handle(one, stage.channel)) for one in said]
    async with asyncio.timeout(5):
        while not stage.engine.requests or len(stage.channel.texts) < until_shown:
            await asyncio.sleep(0)
        while len(await stage.said()) < len(said):
            await asyncio.sleep(0)
    await asyncio.sleep(0.02)  # where the reply is shown is noted
    kept = stage.conversations.append

    async def lost(*_args, **_kwargs) -> None:
        return None

    stage.conversations.append = lost  # type: ignore[method-assign]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    stage.conversations.append = kept  # type: ignore[method-assign]
    stage.engine.script = lambda request: (f"Late: {request.turns[-1].text}",)
    stage.engine.requests.clear()


async def resume(stage: Stage, **changes) -> int:
    stage.with_options(**changes)
    async with asyncio.timeout(10):
        return await stage.chat.resume("fake", lambda _room, _kind: stage.channel)


async def test_a_message_that_was_not_answered_is_answered(stage: Stage) -> None:
    stage.script(asyncio.Event())
    said = in_group("Hello?")
    await killed(stage, said)
    assert await resume(stage) == 1
    assert stage.channel.texts == ["Late: Ann: Hello?"]
    assert stage.channel.sent[0].reply_to == said.message_id
    assert await stage.said() == ["Hello?", "Late: Ann: Hello?"]
    assert await resume(stage) == 0, "once is enough"


async def test_a_reply_that_was_broken_off_is_gone_on_with(stage: Stage) -> None:
    stage.script("This is half of", asyncio.Event())
    await killed(stage, message("Hello?"), until_shown=1)
    assert await resume(stage) == 1
    assert stage.channel.texts == ["Late: Hello?"], "in the message that was there"


async def test_a_reply_in_several_messages_takes_the_place_of_all_of_them(stage: Stage) -> None:
    stage.channel.limits = replace(stage.channel.limits, max_text_length=200)
    stage.script("word " * 120, asyncio.Event())
    await killed(stage, message("Hello?"), until_shown=3)
    assert await resume(stage) == 1
    assert stage.channel.texts == ["Late: Hello?"]


@pytest.mark.parametrize("is_resumed", [True, False])
async def test_a_reply_that_an_orderly_end_breaks_off(stage: Stage, is_resumed: bool) -> None:
    stage.with_options(resumed=frozenset({"fake"} if is_resumed else ()))
    stage.script("This is half of", asyncio.Event())
    saying = asyncio.create_task(stage.chat.handle(message("Hello?"), stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts)
    await asyncio.sleep(0.02)  # where the reply is shown is noted
    assert not await stage.chat.drain(0.01)
    saying.cancel()
    await asyncio.wait({saying})
    stage.script("This is all of it.")
    assert await resume(stage) == int(is_resumed)
    assert stage.channel.texts == ["This is all of it." if is_resumed else "This is half of"]
    assert await stage.said() == ["Hello?", *stage.channel.texts]


async def test_every_try_of_a_reply_has_one_name(stage: Stage, monkeypatch) -> None:
    names: list[str] = []
    send = stage.channel.send

    async def send_once(name: str, text: str, **changes: object) -> str:
        names.append(name)
        return await send(text, **changes)

    monkeypatch.setattr(stage.channel, "send_once", send_once)
    stage.script("This is half of", asyncio.Event())
    await killed(stage, message("Hello?"), until_shown=True)
    stage.channel.sent.clear()
    stage.with_options()
    await stage.chat._conversations.note_shown(LUNA, 1, "luna", ())
    assert await resume(stage) == 1
    await stage.say(message("And now?"))
    assert names[0] == names[1]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 25


async def test_messages_are_answered_in_their_order(stage: Stage) -> None:
    stage.script(asyncio.Event())
    await killed(stage, message("One"), message("Two"))
    assert await resume(stage) == 2
    assert stage.channel.texts == ["Late: One", "Late: Two"]
    assert stage.heard() == ["One", "Late: One", "Two"]


async def test_what_was_answered_is_not_answered_again(stage: Stage) -> None:
    await stage.say(message("One"))
    stage.script(DeviceError("no device"))
    await stage.say(message("Two"))
    stage.script("")
    await stage.say(message("Three"))
    assert await resume(stage) == 0
    assert len(stage.channel.texts) == 3


async def test_a_platform_answers_its_own(stage: Stage) -> None:
    stage.script(asyncio.Event())
    await killed(stage, message("Hello?"))
    stage.with_options()
    assert await stage.chat.resume("other", lambda _room, _kind: stage.channel) == 0
    assert await stage.chat.resume("fake", lambda _room, _kind: stage.channel) == 1


async def test_old_messages_stay_unanswered(stage: Stage) -> None:
    stage.script(asyncio.Event())
    await killed(stage, message("Hello?"))
    await asyncio.sleep(0.01)
    assert await resume(stage, resume_s=0) == 0
    assert await resume(stage) == 0


async def test_a_room_that_cannot_be_written_to_is_given_up(stage: Stage) -> None:
    stage.script(asyncio.Event())
    await killed(stage, message("Hello?"))
    stage.with_options()
    assert await stage.chat.resume("fake", lambda _room, _kind: None) == 0
    assert await resume(stage) == 0


async def test_what_is_being_answered_now_is_left_alone(stage: Stage) -> None:
    may_go = asyncio.Event()
    stage.script(may_go, "Now.")
    saying = asyncio.create_task(stage.chat.handle(message("Hello?"), stage.channel))
    async with asyncio.timeout(5):
        while not stage.engine.requests:
            await asyncio.sleep(0)
    assert await stage.chat.resume("fake", lambda _room, _kind: FakeChannel()) == 0
    may_go.set()
    await saying
    assert stage.channel.texts == ["Now."]


async def test_a_message_that_comes_again_after_the_restart_is_not_answered_twice(stage: Stage) -> None:
    stage.script(asyncio.Event())
    said = message("Hello?")
    await killed(stage, said)
    assert await resume(stage) == 1
    assert await stage.say(said) == []


async def test_forgetting_takes_back_what_is_owed(stage: Stage) -> None:
    stage.script(asyncio.Event())
    await killed(stage, message("Hello?"))
    stage.with_options()
    await stage.chat.start_over(ROOM)
    assert await stage.chat.resume("fake", lambda _room, _kind: stage.channel) == 0


async def test_the_kind_of_chat_is_known_again(stage: Stage) -> None:
    stage.script(asyncio.Event())
    await killed(stage, in_group("Hello?"))
    asked: list[tuple[Room, ChatKind]] = []
    stage.with_options()
    await stage.chat.resume("fake", lambda room, kind: asked.append((room, kind)))
    assert asked == [(ROOM, ChatKind.GROUP)]


@pytest.mark.parametrize("author", [BOB, message().author])
async def test_waiting_messages_of_one_person_are_answered_together(stage: Stage, author) -> None:
    stage.with_options(merge_waiting=True)
    may_go = asyncio.Event()
    stage.engine.script = lambda request: (may_go, f"You said: {request.turns[-1].text}")
    said = [message("One"), message("Two"), message("Three", author=author), message("Four")]
    tasks = []
    for number, one in enumerate(said, start=1):
        tasks.append(asyncio.create_task(stage.chat.handle(one, stage.channel)))
        while len(await stage.said()) < number:
            await asyncio.sleep(0)
    may_go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    if author == BOB:
        assert stage.channel.texts == ["You said: One", "You said: Three", "You said: Four"]
    else:
        assert stage.channel.texts == ["You said: One", "You said: Four"]
        assert stage.heard() == ["One", "You said: One", "Two", "Three", "Four"]
    assert await resume(stage) == 0, "all of them were answered"


async def waiting_together(stage: Stage, *texts: str, is_silent: bool = False) -> tuple[list, asyncio.Event]:
    """Messages of one person, of which the first is being answered. The event lets replies come."""
    stage.with_options(merge_waiting=True)
    may_go = asyncio.Event()
    stage.engine.script = lambda request: (may_go, "" if is_silent else f"You said: {request.turns[-1].text}")
    said = [message(text) for text in texts]
    tasks = []
    for number, one in enumerate(said, start=1):
        tasks.append((one, asyncio.create_task(stage.chat.handle(one, stage.channel))))
        while len(await stage.said()) < number:
            await asyncio.sleep(0)
    return tasks, may_go


async def test_a_reply_without_words_settles_all_that_it_would_have_answered(stage: Stage) -> None:
    tasks, may_go = await waiting_together(stage, "One", "Two", "Three", is_silent=True)
    may_go.set()
    await asyncio.gather(*(task for _, task in tasks))
    assert await resume(stage) == 0


@pytest.mark.parametrize(
    ("deleted", "has_begun"),
    [([3], False), ([4], False), ([3, 2, 4], False), ([4], True), ([4, 3], True), ([3, 4, 2], True)],
)
async def test_whoever_deletes_a_message_is_answered_what_it_stood_for(
    stage: Stage, deleted: list[int], has_begun: bool
) -> None:
    """Messages that wait together are answered with the last of them; without it, with the one before."""
    texts = ["Zero", "One", "Two", "Three", "Four"]
    tasks, may_go = await waiting_together(stage, *texts)
    if has_begun:
        gates = iter([asyncio.Event(), may_go])
        stage.engine.script = lambda request: (next(gates), f"You said: {request.turns[-1].text}")
        may_go.set()
        while len(stage.engine.requests) < 2:
            await asyncio.sleep(0)
    message_ids = tuple(tasks[number][0].message_id for number in deleted)
    deleting = asyncio.create_task(stage.chat.handle_deletion(ROOM, message_ids, stage.channel))
    await asyncio.sleep(0.02)
    may_go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(deleting, *(task for _, task in tasks))
    kept = [text for number, text in enumerate(texts) if number not in deleted]
    assert stage.channel.texts == ["You said: Zero", f"You said: {kept[-1]}"]
    assert [text for text in await stage.said() if not text.startswith("You said")] == kept
    assert await resume(stage) == 0


@pytest.mark.parametrize("words", ["", "Some words that are shown"])
async def test_what_was_stopped_is_not_answered_after_a_restart(stage: Stage, words: str) -> None:
    await stage.rooms.change(ROOM, RoomSettings(cast=("max",)))
    stage.script(words, asyncio.Event())
    saying = asyncio.create_task(stage.chat.handle(in_group("Luna, Max, hello?"), stage.channel))
    while not stage.engine.requests or bool(words) != bool(stage.channel.texts):
        await asyncio.sleep(0)
    stop = CommandCall(ROOM, ChatKind.GROUP, ANN, channel=stage.channel)
    async with asyncio.timeout(10):
        await stage.chat.steering.stop(stop)
        await saying
    assert await resume(stage) == 0


async def test_a_group_that_moves_in_the_middle_of_a_reply_is_answered_once(stage: Stage) -> None:
    may_go = asyncio.Event()
    stage.engine.script = lambda request: ("Some words that are shown", may_go, f" after {request.turns[-1].text}")
    first = asyncio.create_task(stage.chat.handle(in_group("One"), stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts)
    second = asyncio.create_task(stage.chat.handle(in_group("Two"), stage.channel))
    while len(await stage.said()) < 2:
        await asyncio.sleep(0)
    await stage.chat.handle_move("fake", "1", "-1001")
    may_go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(first, second)
    moved = ConversationKey(Room("fake", "-1001"), "luna")
    assert len(await stage.said(moved)) == 4
    assert await stage.said() == []
    last = await stage.conversations.last_reply(moved.room, ["luna"])
    assert last is not None
    origin = await stage.conversations.origin_of(*(last[0], last[1].id))
    assert origin is not None
    assert origin.asked_turn_id is not None
    assert await resume(stage) == 0


async def test_a_closing_engine_leaves_the_message_for_the_next_start(stage: Stage) -> None:
    stage.script(EngineClosing("closing"))
    await stage.say(message("Hello?"))
    stage.script("Back again.")
    assert await resume(stage) == 1
    assert stage.channel.texts == ["Back again."], "in place of what was said in between"
