"""What people do with a reply that is there, and what follows from edits, deletions and emoji."""

import asyncio
import contextlib
import itertools
from dataclasses import replace
from functools import partial

import pytest

from bot.chat import ChatOptions
from bot.commands import Command, CommandCall, CommandReply, build_commands
from bot.controls import reply_controls
from bot.errors import BotError, CommandError, DeliveryError
from bot.rooms import RoomSettings
from bot.steering import (
    FIRST_VERSION,
    MAY_I_KEEP,
    NO_REPLY,
    NOBODY_ASKED,
    NOT_MY_REPLY,
    NOT_THE_LAST,
    NOT_YOUR_EXCHANGE,
    NOT_YOURS,
    NOTHING_RUNS,
    NOTHING_TO_ADD,
    NOTHING_TO_UNDO,
)
from bot.types import (
    Alternatives,
    ChatKind,
    Control,
    ConversationKey,
    IncomingReaction,
    NewTurn,
    Rating,
    RepliedMessage,
    Room,
    StoredTurn,
)
from engine.errors import DeviceError
from engine.types import GenerationRequest, Role
from tests.bot.chatting import BOB, LUNA, MAX, ROOM, Stage, in_group, message
from tests.fakes.adapter import ANN, BOT


def number_replies(stage: Stage) -> None:
    """Every reply has other words."""
    numbers = itertools.count(1)
    stage.engine.script = lambda _request: (f"Reply {next(numbers)}.",)


def call(stage: Stage, **changes) -> CommandCall:
    values = {"room": ROOM, "kind": ChatKind.DIRECT, "author": ANN, "channel": stage.channel}
    return CommandCall(**(values | changes))


def command(stage: Stage, *path: str) -> Command:
    found = build_commands(stage.chat, steering=stage.chat.steering, has_ratings=True).find(*path)
    assert found is not None
    return found


async def use(stage: Stage, *path: str, arguments: dict[str, str] | None = None, **changes) -> CommandReply:
    async with asyncio.timeout(30):
        return await command(stage, *path).run(call(stage, arguments=arguments or {}, **changes))


async def swipe(stage: Stage, direction: str = "next", **changes) -> CommandReply:
    return await use(stage, "swipe", arguments={"direction": direction}, **changes)


async def test_swiping_makes_other_versions_and_finds_them_again(stage: Stage) -> None:
    number_replies(stage)
    await stage.say(message("Hi"))
    await swipe(stage)
    assert stage.channel.texts == ["Reply 2."]
    assert stage.heard(1) == stage.heard(0)
    await swipe(stage, "back")
    assert stage.channel.texts == ["Reply 1."]
    assert await stage.said() == ["Hi", "Reply 1."]
    await swipe(stage)
    assert stage.channel.texts == ["Reply 2."]
    assert len(stage.engine.requests) == 2, "the second version was there already"
    await swipe(stage, "back")
    with pytest.raises(CommandError, match=FIRST_VERSION):
        await swipe(stage, "back")


async def test_the_conversation_goes_on_from_the_version_that_counts(stage: Stage) -> None:
    number_replies(stage)
    await stage.say(message("Hi"))
    await use(stage, "regenerate")
    await swipe(stage, "back")
    await stage.say(message("And now?"))
    assert stage.heard() == ["Hi", "Reply 1.", "And now?"]


async def test_versions_outlive_a_restart(stage: Stage) -> None:
    number_replies(stage)
    await stage.say(message("Hi"))
    await use(stage, "regenerate")
    stage.with_options()
    await swipe(stage, "back", message_id=stage.channel.sent[0].id)
    assert stage.channel.texts == ["Reply 1."]


async def test_only_the_last_reply_has_other_versions(stage: Stage) -> None:
    await stage.say(message("One"))
    first = stage.channel.sent[0].id
    await stage.say(message("Two"))
    for path in ("swipe", "regenerate", "continue", "undo"):
        with pytest.raises(CommandError, match=NOT_THE_LAST):
            await use(stage, path, message_id=first)
    assert await stage.said() == ["One", "You said: One", "Two", "You said: Two"]


async def test_a_version_that_fails_leaves_the_one_that_was_there(stage: Stage) -> None:
    await stage.say(message("Hi"))
    stage.script("Half a" * 100, DeviceError("no device"))
    stage.channel.limits = replace(stage.channel.limits, max_text_length=200)
    for path in ("regenerate", "continue"):
        with pytest.raises(Exception, match="problem"):
            await use(stage, path)
        assert stage.channel.texts == ["You said: Hi"]
        assert await stage.said() == ["Hi", "You said: Hi"]


@pytest.mark.parametrize("path", [("swipe",), ("continue",)])
@pytest.mark.parametrize("num_shown", [0, 1, 2])
async def test_whoever_stops_a_change_sees_what_is_remembered(
    stage: Stage, path: tuple[str, ...], num_shown: int
) -> None:
    stage.channel.limits = replace(stage.channel.limits, max_text_length=200)
    stage.script("word " * 119)
    await stage.say(message("Hi"))
    if path == ("swipe",):
        stage.script("new.")
        await use(stage, "regenerate")
    else:
        stage.script(asyncio.Event())
    stage.channel.delay_s = 0.01
    num_texts = sum(len(sent.texts) for sent in stage.channel.sent)
    changing = asyncio.create_task(swipe(stage, "back") if path == ("swipe",) else use(stage, *path))
    await stage.channel.wait_until(
        lambda: sum(len(sent.texts) for sent in stage.channel.sent) >= num_texts + max(num_shown, 1)
    )
    with contextlib.suppress(BotError):
        await use(stage, "stop")
    await changing
    assert "\n".join(stage.channel.texts).split() == (await stage.said())[-1].split() == ["word"] * 119


async def test_whoever_stops_an_edit_while_it_is_kept_sees_it_all_the_same(stage: Stage, monkeypatch) -> None:
    await stage.say(message("Hi"))
    kept, is_keeping = stage.conversations.rewrite, asyncio.Event()

    async def slowly(*args) -> bool:
        is_keeping.set()
        await asyncio.sleep(0.02)
        return await kept(*args)

    monkeypatch.setattr(stage.conversations, "rewrite", slowly)
    editing = asyncio.create_task(use(stage, "edit", arguments={"text": "Other words."}))
    await is_keeping.wait()
    await use(stage, "stop")
    await editing
    assert stage.channel.texts == ["Other words."]
    assert await stage.said() == ["Hi", "Other words."]


async def test_going_on_adds_to_the_reply(stage: Stage) -> None:
    stage.script("Once upon")
    await stage.say(message("Tell me"))
    stage.script(" a time.")
    await use(stage, "continue")
    assert stage.engine.requests[-1].reply_start == "Once upon"
    assert stage.heard() == ["Tell me"]
    assert stage.channel.texts == ["Once upon a time."]
    assert await stage.said() == ["Tell me", "Once upon a time."]
    stage.script("")
    assert (await use(stage, "continue")).text == NOTHING_TO_ADD
    assert await stage.said() == ["Tell me", "Once upon a time."]


async def test_undo_forgets_the_exchange(stage: Stage) -> None:
    await stage.say(message("One"))
    await stage.say(message("Two"))
    await use(stage, "undo")
    assert await stage.said() == ["One", "You said: One"]
    assert stage.channel.texts == ["You said: One"]
    await use(stage, "undo")
    assert await stage.said() == []
    with pytest.raises(CommandError, match=NO_REPLY):
        await use(stage, "undo")


async def test_deleting_forgets_the_reply_alone(stage: Stage) -> None:
    await stage.say(message("One"))
    await stage.say(message("Two"))
    await use(stage, "delete", message_id=stage.channel.sent[0].id)
    assert await stage.said() == ["One", "Two", "You said: Two"]
    assert stage.channel.texts == ["You said: Two"]


async def test_what_cannot_be_deleted_is_forgotten_all_the_same(stage: Stage, monkeypatch) -> None:
    async def refuse(_message_id: str) -> None:
        raise DeliveryError("too old")

    await stage.say(message("One"))
    monkeypatch.setattr(stage.channel, "delete", refuse)
    await use(stage, "delete")
    assert await stage.said() == ["One"]


async def test_editing_puts_other_words_into_a_reply(stage: Stage) -> None:
    await stage.say(message("One"))
    await stage.say(message("Two"))
    first = stage.channel.sent[0].id
    assert await stage.chat.steering.current_text(call(stage, message_id=first)) == "You said: One"
    await use(stage, "edit", arguments={"text": "I said nothing."}, message_id=first)
    assert stage.channel.texts == ["I said nothing.", "You said: Two"]
    assert (await stage.said())[1] == "I said nothing."


async def test_a_reply_in_several_messages_is_replaced_as_a_whole(stage: Stage) -> None:
    stage.channel.limits = replace(stage.channel.limits, max_text_length=200)
    stage.script("word " * 80)
    await stage.say(message("Much"))
    num_messages = len(stage.channel.sent)
    assert num_messages > 1
    stage.script("Short.")
    await use(stage, "regenerate", message_id=stage.channel.sent[0].id)
    assert stage.channel.texts == ["Short."]
    await swipe(stage, "back")
    assert " ".join(" ".join(stage.channel.texts).split()) == " ".join(["word"] * 80)
    await swipe(stage, message_id=stage.channel.sent[-1].id)
    assert stage.channel.texts == ["Short."]


async def test_only_the_asker_or_a_moderator_may_press(stage: Stage) -> None:
    await stage.say(in_group("Mine"))
    for path, arguments in (
        ("regenerate", {}),
        ("delete", {}),
        ("edit", {"text": "x"}),
        ("undo", {}),
        ("continue", {}),
    ):
        with pytest.raises(CommandError, match=NOT_YOURS):
            await use(stage, path, arguments=arguments, author=BOB, kind=ChatKind.GROUP)
    namesake = replace(BOB, display_name=ANN.display_name)
    with pytest.raises(CommandError, match=NOT_YOURS):
        await use(stage, "delete", author=namesake, kind=ChatKind.GROUP)
    await use(stage, "regenerate", kind=ChatKind.GROUP)
    await use(stage, "delete", author=BOB, kind=ChatKind.GROUP, is_moderator=True)
    assert stage.channel.texts == []


async def test_the_reply_before_gets_its_buttons_back(stage: Stage) -> None:
    stage.with_options(has_controls=frozenset(ChatKind))
    await stage.say(message("One"))
    await stage.say(message("Two"))
    first, second = stage.channel.sent
    await stage.channel.wait_until(lambda: not first.controls)
    await use(stage, "undo")
    assert first.controls == second.controls
    await use(stage, "delete", message_id=first.id)
    await stage.say(message("Three"))
    assert len(stage.channel.sent) == 1, "nobody looks for the buttons of what is gone"


async def test_a_greeting_is_nobodys_to_take_back(stage: Stage) -> None:
    await stage.chat.greet_once(ROOM)
    with pytest.raises(CommandError, match=NOTHING_TO_UNDO):
        await use(stage, "undo")


async def test_nothing_of_another_room_can_be_reached(stage: Stage) -> None:
    await stage.say(message("Secret"))
    elsewhere = Room("fake", "2")
    with pytest.raises(CommandError, match=NOT_MY_REPLY):
        await use(stage, "edit", arguments={"text": "x"}, room=elsewhere, message_id=stage.channel.sent[0].id)
    with pytest.raises(CommandError, match=NO_REPLY):
        await use(stage, "regenerate", room=elsewhere)
    assert await stage.said() == ["Secret", "You said: Secret"]


async def test_a_press_may_be_quicker_than_memory(stage: Stage, monkeypatch) -> None:
    kept = stage.conversations.append
    may_keep = asyncio.Event()

    async def slow(key: ConversationKey, turn: NewTurn, **changes: object) -> StoredTurn | None:
        if turn.role is Role.ASSISTANT:
            await may_keep.wait()
        return await kept(key, turn, **changes)

    monkeypatch.setattr(stage.conversations, "append", slow)
    saying = asyncio.create_task(stage.chat.handle(message("Hi"), stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts)
    pressing = asyncio.create_task(use(stage, "delete", message_id=stage.channel.sent[0].id))
    await asyncio.sleep(0.02)
    assert not pressing.done()
    may_keep.set()
    await asyncio.gather(saying, pressing)
    assert stage.channel.texts == []


async def test_a_greeting_cannot_be_made_anew(stage: Stage) -> None:
    await stage.chat.greet_once(ROOM)
    with pytest.raises(CommandError, match=NOBODY_ASKED):
        await use(stage, "regenerate")


async def test_a_reply_that_is_being_given_can_be_stopped(stage: Stage) -> None:
    stage.script("Half a reply", asyncio.Event())
    saying = asyncio.create_task(stage.chat.handle(message("Go"), stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts)
    await use(stage, "stop")
    await saying
    assert await stage.said() == ["Go", "Half a reply"]
    with pytest.raises(CommandError, match=NOTHING_RUNS):
        await use(stage, "stop")


@pytest.mark.parametrize("now", [RoomSettings(), RoomSettings(cast=("max",))])
async def test_a_reply_can_be_stopped_after_somebody_joined_or_left(stage: Stage, now: RoomSettings) -> None:
    await stage.rooms.change(ROOM, RoomSettings() if now.cast else RoomSettings(cast=("max",)))
    stage.script("Half a reply", asyncio.Event())
    for forget in (partial(use, stage, "stop"), partial(stage.chat.start_over, ROOM)):
        stage.channel.sent.clear()
        saying = asyncio.create_task(stage.chat.handle(in_group("Luna, go"), stage.channel))
        await stage.channel.wait_until(lambda: stage.channel.texts)
        before = await stage.rooms.settings(ROOM)
        await stage.rooms.change(ROOM, now)
        async with asyncio.timeout(5):
            await forget()
            await saying
        await stage.rooms.change(ROOM, before)
    assert await stage.said() == []


async def test_a_persona_that_is_not_in_the_room_can_be_stopped(stage: Stage) -> None:
    await stage.say(in_group("Hi"))
    of_luna = RepliedMessage(stage.channel.sent[0].id, BOT, "Hi", is_from_bot=True)
    await stage.rooms.choose(ROOM, "max")
    stage.script("Half a reply", asyncio.Event())
    saying = asyncio.create_task(stage.chat.handle(in_group("Go", reply_to=of_luna), stage.channel))
    await stage.channel.wait_until(lambda: len(stage.channel.texts) == 2)
    await use(stage, "stop")
    async with asyncio.timeout(5):
        await saying


async def test_only_the_asker_or_a_moderator_may_stop(stage: Stage) -> None:
    stage.script("Half a reply", asyncio.Event())
    saying = asyncio.create_task(stage.chat.handle(in_group("Go"), stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts)
    with pytest.raises(CommandError, match="moderator"):
        await use(stage, "stop", author=BOB, kind=ChatKind.GROUP)
    await use(stage, "stop", author=BOB, kind=ChatKind.GROUP, is_moderator=True)
    await saying


# --- buttons


def labels(controls: tuple[Control, ...]) -> str:
    return " ".join(control.label for control in controls)


def test_the_buttons_tell_where_one_is() -> None:
    assert labels(reply_controls()) == "🔄 ⏩ ✏️ ↩️ 🗑️"
    assert labels(reply_controls(Alternatives(("a", "b", "c"), 1))).startswith("◀ 2/3 ▶ ")
    assert labels(reply_controls(Alternatives(("a", "b"), 1), has_ratings=True)) == "◀ 2/2 🔄 ⏩ ✏️ ↩️ 🗑️ 👍 👎"


def test_every_button_is_a_command_that_is_there(stage: Stage) -> None:
    for control in reply_controls(Alternatives(("a", "b"), 1), has_ratings=True):
        found = command(stage, *control.path)
        assert control.argument in {"", *(argument.name for argument in found.arguments)}


async def test_only_the_last_reply_has_buttons(stage: Stage) -> None:
    stage.with_options(has_controls=frozenset(ChatKind))
    await stage.say(message("One"))
    first = stage.channel.sent[0]
    assert first.controls
    await stage.say(message("Two"))
    await stage.channel.wait_until(lambda: not first.controls)
    assert stage.channel.sent[1].controls
    await swipe(stage)
    assert labels(stage.channel.sent[1].controls).startswith("◀ 2/2")


@pytest.mark.parametrize(
    ("options", "of_room", "has_buttons"),
    [
        ({"has_controls": frozenset({ChatKind.DIRECT})}, None, False),
        ({"has_controls": frozenset(ChatKind)}, None, True),
        ({"has_controls": frozenset(ChatKind)}, False, False),
        ({}, True, True),
    ],
)
async def test_a_room_may_do_without_buttons(stage: Stage, options, of_room: bool | None, has_buttons: bool) -> None:
    stage.with_options(**options)
    if of_room is not None:
        await stage.rooms.change(ROOM, RoomSettings(has_controls=of_room))
    await stage.say(in_group("Hi"))
    assert bool(stage.channel.sent[0].controls) is has_buttons


# --- ratings


async def test_nothing_is_kept_without_consent(stage: Stage) -> None:
    await stage.say(message("Hi"))
    turn_id = stage.channel.sent and (await stage.conversations.recent(LUNA, max_turns=9))[-1].id
    asked = await use(stage, "rate", arguments={"rating": "good"})
    assert asked.text == MAY_I_KEEP
    assert asked.is_private
    assert [choice.value for choice in asked.choices] == ["on", "off"]
    assert command(stage, *asked.choice_path).arguments[0].name == asked.choice_argument
    assert not await stage.ratings.of(LUNA, turn_id)
    await use(stage, "ratings", arguments={"answer": "on"})
    await use(stage, "rate", arguments={"rating": "good"})
    assert await stage.ratings.of(LUNA, turn_id) == {0: {Rating.GOOD: 1}}
    await use(stage, "ratings", arguments={"answer": "off"})
    assert not await stage.ratings.of(LUNA, turn_id)


async def test_only_ones_own_exchanges_can_be_rated(stage: Stage) -> None:
    await stage.say(in_group("Mine"))
    await stage.ratings.give_consent(BOB, True)
    with pytest.raises(CommandError, match=NOT_YOUR_EXCHANGE):
        await use(stage, "rate", arguments={"rating": "bad"}, author=BOB, kind=ChatKind.GROUP, is_moderator=True)


# --- emoji


def reaction(stage: Stage, emoji: str, **changes) -> IncomingReaction:
    values = {
        "room": ROOM,
        "kind": ChatKind.GROUP,
        "message_id": stage.channel.sent[-1].id,
        "author": ANN,
        "emoji": emoji,
    }
    return IncomingReaction(**(values | changes))


async def test_an_emoji_under_a_reply_is_a_command_in_short(stage: Stage) -> None:
    number_replies(stage)
    await stage.say(in_group("Hi"))
    await stage.chat.handle_reaction(reaction(stage, "🔁"), stage.channel)
    assert stage.channel.texts == ["Reply 2."]
    await stage.chat.handle_reaction(reaction(stage, "🗑️", author=BOB), stage.channel)
    assert stage.channel.texts == ["Reply 2."], "it was Ann who asked"
    await stage.chat.handle_reaction(reaction(stage, "😀"), stage.channel)
    await stage.chat.handle_reaction(reaction(stage, "🗑️", is_added=False), stage.channel)
    assert stage.channel.texts == ["Reply 2."]
    await stage.chat.handle_reaction(reaction(stage, "🗑️"), stage.channel)
    assert stage.channel.texts == []


async def test_a_thumb_counts_where_somebody_agreed_before(stage: Stage) -> None:
    await stage.say(in_group("Hi"))
    turn_id = (await stage.conversations.recent(LUNA, max_turns=9))[-1].id
    await stage.chat.handle_reaction(reaction(stage, "👎"), stage.channel)
    assert not await stage.ratings.of(LUNA, turn_id)
    await stage.ratings.give_consent(ANN, True)
    await stage.chat.handle_reaction(reaction(stage, "👎"), stage.channel)
    assert await stage.ratings.of(LUNA, turn_id) == {0: {Rating.BAD: 1}}
    await stage.chat.handle_reaction(reaction(stage, "👎", is_added=False), stage.channel)
    assert not await stage.ratings.of(LUNA, turn_id)


# --- edits and deletions


async def test_the_reply_follows_an_edit(stage: Stage) -> None:
    said = message("I like cats")
    await stage.say(said)
    await stage.chat.handle_edit(replace(said, text="I like dogs"), stage.channel)
    assert stage.channel.texts == ["You said: I like dogs"]
    assert await stage.said() == ["I like dogs", "You said: I like dogs"]


async def test_an_edit_of_an_earlier_message_changes_memory_alone(stage: Stage) -> None:
    first = message("I like cats")
    await stage.say(first)
    await stage.say(message("Really"))
    await stage.chat.handle_edit(replace(first, text="I like dogs"), stage.channel)
    assert len(stage.engine.requests) == 2
    await stage.say(message("What do I like?"))
    assert stage.heard()[0] == "I like dogs"


async def test_an_edit_while_the_message_waits_is_answered_once(stage: Stage) -> None:
    may_go = asyncio.Event()
    stage.script("Wait.", may_go)
    first = asyncio.create_task(stage.chat.handle(message("One"), stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts)
    stage.engine.script = lambda request: (f"You said: {request.turns[-1].text}",)
    said = message("Tow")
    second = asyncio.create_task(stage.chat.handle(said, stage.channel))
    while len(await stage.said()) < 2:
        await asyncio.sleep(0)
    await stage.chat.handle_edit(replace(said, text="Two"), stage.channel)
    may_go.set()
    await asyncio.gather(first, second)
    assert stage.channel.texts == ["Wait.", "You said: Two"]
    assert len(stage.engine.requests) == 2


async def test_many_edits_in_a_row_are_answered_with_the_newest(stage: Stage) -> None:
    said = message("Hi")
    await stage.say(said)
    may_go = asyncio.Event()
    stage.engine.script = lambda request: (may_go, f"Now: {request.turns[-1].text}")
    edits = [
        asyncio.create_task(stage.chat.handle_edit(replace(said, text=f"Hi {number}"), stage.channel))
        for number in range(20)
    ]
    while "Hi 19" not in await stage.said():
        await asyncio.sleep(0)
    may_go.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*edits)
    assert stage.channel.texts == ["Now: Hi 19"]
    assert len(stage.engine.requests) <= 3, "the first reply, one that had begun, and the last"


async def test_an_answer_to_an_edit_can_be_stopped(stage: Stage) -> None:
    said = in_group("Hi")
    await stage.say(said)
    stage.script("Half of another", asyncio.Event())
    editing = asyncio.create_task(stage.chat.handle_edit(replace(said, text="Hello"), stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts == ["Half of another"])
    await use(stage, "stop", kind=ChatKind.GROUP)
    await editing


async def test_only_the_author_edits(stage: Stage) -> None:
    said = in_group("Mine")
    await stage.say(said)
    await stage.chat.handle_edit(replace(said, text="Stolen", author=BOB), stage.channel)
    await stage.chat.handle_edit(message("Unheard of"), stage.channel)
    assert (await stage.said())[0] == "Mine"
    assert len(stage.engine.requests) == 1


async def test_a_deleted_message_takes_its_replies_along(stage: Stage) -> None:
    first, second = message("One"), message("Two")
    await stage.say(first)
    await stage.say(second)
    await stage.chat.handle_deletion(ROOM, (first.message_id, "unknown"), stage.channel)
    assert await stage.said() == ["Two", "You said: Two"]
    assert stage.channel.texts == ["You said: Two"]


async def test_what_a_persona_heard_that_is_gone_can_be_changed_and_deleted(stage: Stage) -> None:
    said = message("A secret")
    await stage.say(said)
    stage.library.personas[:] = [persona for persona in stage.library.personas if persona.id != "luna"]
    await stage.chat.handle_edit(replace(said, text="Nothing"), stage.channel)
    assert await stage.said() == ["Nothing", "You said: A secret"]
    await stage.chat.handle_deletion(ROOM, (said.message_id,), stage.channel)
    assert await stage.said() == []
    assert stage.channel.texts == []


async def test_deleting_a_message_stops_the_reply_to_it(stage: Stage) -> None:
    stage.script("Half a reply", asyncio.Event())
    said = message("Go")
    saying = asyncio.create_task(stage.chat.handle(said, stage.channel))
    await stage.channel.wait_until(lambda: stage.channel.texts)
    async with asyncio.timeout(5):
        await stage.chat.handle_deletion(ROOM, (said.message_id,), stage.channel)
        await saying
    assert await stage.said() == []
    assert stage.channel.texts == []


async def test_a_reply_that_a_moderator_deleted_is_forgotten(stage: Stage) -> None:
    await stage.say(message("Hi"))
    await stage.chat.handle_deletion(ROOM, (stage.channel.sent[0].id,), stage.channel)
    assert await stage.said() == ["Hi"]


async def test_what_the_bot_itself_takes_away_is_not_forgotten(stage: Stage, monkeypatch) -> None:
    """Discord tells of every deletion, and not who did it."""
    told: list[asyncio.Task[None]] = []
    delete = stage.channel.delete

    async def delete_and_tell(message_id: str) -> None:
        await delete(message_id)
        told.append(asyncio.create_task(stage.chat.handle_deletion(ROOM, (message_id,), stage.channel)))
        await asyncio.sleep(0.01)

    stage.channel.limits = replace(stage.channel.limits, max_text_length=200)
    stage.script("word " * 80)
    await stage.say(message("Much"))
    monkeypatch.setattr(stage.channel, "delete", delete_and_tell)
    stage.script("Short.")
    await use(stage, "regenerate")
    await asyncio.gather(*told)
    assert told
    assert stage.channel.texts == ["Short."]
    assert await stage.said() == ["Much", "Short."]


async def test_a_group_that_moves_keeps_its_memory(stage: Stage) -> None:
    await stage.say(message("Hi"))
    await stage.chat.handle_move("fake", "1", "-1001")
    moved = ConversationKey(Room("fake", "-1001"), "luna")
    assert await stage.said(moved) == ["Hi", "You said: Hi"]


async def test_a_seed_gives_other_words_each_time(stage: Stage) -> None:
    stage.with_options(sampling=replace(ChatOptions().sampling, seed=7))
    await stage.say(message("Hi"))
    await use(stage, "regenerate")
    seeds = [request.sampling.seed for request in stage.engine.requests]
    assert seeds[0] == 7
    assert seeds[1] not in (None, 7)


async def test_a_reply_without_words_leaves_the_version_that_was_there(stage: Stage) -> None:
    await stage.say(message("Hi"))
    stage.script("")
    await use(stage, "regenerate")
    assert stage.channel.texts == ["You said: Hi"]
    assert await stage.said() == ["Hi", "You said: Hi"]


# --- several personas


def as_named(request: GenerationRequest) -> tuple[str, ...]:
    return (f"{request.persona.name} here.",)


async def test_versions_are_the_speakers_own(stage: Stage) -> None:
    await stage.rooms.change(ROOM, RoomSettings(cast=("max",), max_exchange=0))
    stage.engine.script = as_named
    await stage.say(in_group("Luna, Max, who are you?"))
    assert stage.channel.texts == ["Luna here.", "Max here."]
    stage.engine.script = lambda request: (f"{request.persona.name} again.",)
    await use(stage, "regenerate", message_id=stage.channel.sent[0].id, kind=ChatKind.GROUP)
    assert stage.channel.texts == ["Luna again.", "Max here."]
    assert stage.heard() == ["Ann: Luna, Max, who are you?"]
    await use(stage, "undo", kind=ChatKind.GROUP)
    assert stage.channel.texts == []
    assert await stage.said(LUNA) == await stage.said(MAX) == []


async def test_an_emoji_finds_the_right_persona(stage: Stage) -> None:
    await stage.rooms.change(ROOM, RoomSettings(cast=("max",), max_exchange=0))
    stage.engine.script = as_named
    await stage.say(in_group("Luna, Max, who are you?"))
    await stage.chat.handle_reaction(reaction(stage, "🗑️"), stage.channel)
    assert stage.channel.texts == ["Luna here."]
    assert [turn.role for turn in await stage.conversations.recent(MAX, max_turns=9)] == []
    assert (await stage.conversations.recent(LUNA, max_turns=9))[-1].role is Role.ASSISTANT
