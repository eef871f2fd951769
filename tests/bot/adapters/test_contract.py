"""What every adapter promises: one suite, run against each of `HARNESSES`.

A platform is plugged in by one entry there: its name, and a function that takes a handler and the command table and
gives an async context manager around a `Harness` (see `tests.bot.adapters.harness`).
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest
from PIL import Image

from bot.adapters.base import AdapterState, MessageHandler, ReplyChannel
from bot.chat import TOO_BUSY, ChatOptions, ChatService
from bot.commands import Argument, Command, CommandCall, CommandReply, CommandTable, ReplyPicture, build_commands
from bot.errors import DeliveryError, MediaError, PersonaError
from bot.replies import Pacing
from bot.types import ChatKind, IncomingMessage
from engine.backends.echo import EchoEngine
from engine.errors import EngineBusy
from engine.types import QueuePlace
from tests.bot.adapters.contract_telegram import open_telegram
from tests.bot.adapters.discord.harness import open_discord
from tests.bot.adapters.harness import ALL_TRAITS, Answered, Chat, Harness, OpenHarness, Shown, Trait
from tests.bot.adapters.web.harness import open_web
from tests.fakes.adapter import FakeAdapter
from tests.fakes.engine import ScriptedEngine
from tests.fakes.personas import MemoryLibrary, a_persona
from tests.fakes.store import MemoryAttachments, MemoryConversations, MemoryRooms

TIMEOUT_S = 20.0


class FakeHarness:
    """The adapter in memory: the smallest one that keeps the contract, and the example for others."""

    traits = ALL_TRAITS

    def __init__(self, handler: MessageHandler, commands: CommandTable) -> None:
        self.adapter = FakeAdapter(handler, commands)
        self._running = asyncio.create_task(self.adapter.run())

    async def say(
        self,
        text: str,
        *,
        chat: Chat = "direct",
        picture: bytes | None = None,
        reply_to: str | None = None,
        mentions_bot: bool = False,
    ) -> str:
        return self.adapter.say(
            text,
            picture=picture,
            reply_to=reply_to,
            chat_id=chat,
            is_group=chat == "group",
            mentions_bot=mentions_bot,
        )

    async def shown(self, chat: Chat = "direct") -> list[Shown]:
        return [
            Shown(sent.id, sent.text, sent.reply_to, tuple(control.label for control in sent.controls))
            for sent in self.adapter.channel_of(chat).sent
        ]

    async def use_command(self, path: tuple[str, ...], arguments: Mapping[str, str]) -> str:
        return (await self.adapter.use_command(path, arguments, chat_id="direct")).text

    async def ask(
        self,
        path: tuple[str, ...],
        arguments: Mapping[str, str],
        *,
        picture: bytes | None = None,
        reply_to: str | None = None,
    ) -> Answered:
        reply = await self.adapter.use_command(path, arguments, chat_id="direct", picture=picture, reply_to=reply_to)
        return Answered(reply.text, tuple(picture.data for picture in reply.pictures))

    async def press(self, message_id: str, label: str, *, chat: Chat = "direct", by_other: bool = False) -> None:
        await self.adapter.press(message_id, label, chat_id=chat, is_group=chat == "group", by_other=by_other)

    async def edit_said(self, message_id: str, text: str, *, chat: Chat = "direct") -> None:
        self.adapter.edit_said(message_id, text, chat_id=chat)

    async def delete_said(self, message_id: str, *, chat: Chat = "direct") -> None:
        self.adapter.delete_said(message_id, chat_id=chat)

    async def react(self, message_id: str, emoji: str, *, chat: Chat = "direct") -> None:
        self.adapter.react(message_id, emoji, chat_id=chat, is_group=chat == "group")

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})


@contextlib.asynccontextmanager
async def open_fake(handler: MessageHandler, commands: CommandTable) -> AsyncIterator[Harness]:
    """The platform in memory."""
    harness = FakeHarness(handler, commands)
    await harness.adapter.is_running.wait()
    try:
        yield harness
    finally:
        await harness.stop()


HARNESSES: dict[str, OpenHarness] = {
    "fake": open_fake,
    "discord": open_discord,
    "telegram": open_telegram,
    "web": open_web,
}


@dataclass
class Recorder(MessageHandler):
    """A handler that records what arrives, and does with it what a test says."""

    react: Callable[[IncomingMessage, ReplyChannel], Awaitable[None]] | None = None
    arrived: list[tuple[IncomingMessage, ReplyChannel]] = field(default_factory=list)
    num_cancelled: int = 0

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        self.arrived.append((message, channel))
        try:
            if self.react is not None:
                await self.react(message, channel)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    async def wait_for(self, num: int = 1) -> list[tuple[IncomingMessage, ReplyChannel]]:
        """Wait for that many messages."""
        await until(lambda: len(self.arrived) >= num)
        return self.arrived


async def until(is_reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not is_reached():
            await asyncio.sleep(0.005)


def a_picture() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 48), 60).save(out, "PNG")
    return out.getvalue()


async def greet(call: CommandCall) -> CommandReply:
    """A command of the contract: says who asked for whom."""
    if call.arguments.get("name") == "nobody":
        raise PersonaError("nobody is not here; try somebody")
    return CommandReply(f"{call.room.platform} {call.kind} {call.arguments.get('name')}")


DRAWN = ReplyPicture("drawn.png", a_picture(), alt="noise")


async def look(call: CommandCall) -> CommandReply:
    """A command of the contract: says what it was used on, and shows pictures."""
    sizes = [Image.open(io.BytesIO(await file.read(1_000_000))).size for file in call.files]
    about = call.reply_to
    lines = ["Here is what I found.", *(f"picture {width} x {height}" for width, height in sizes)]
    if about is not None:
        lines.append(f"on {about.message_id} {about.text!r} {'mine' if about.is_from_bot else 'yours'}")
    text = "\n".join(lines) * int(call.arguments.get("times") or 1)
    return CommandReply(text, pictures=(DRAWN, DRAWN) if sizes else (DRAWN,))


@dataclass
class Scene:
    """A connected platform whose messages go to a recorder."""

    name: str
    harness: Harness
    recorder: Recorder

    def needs(self, trait: Trait) -> None:
        if trait not in self.harness.traits:
            pytest.skip(f"{self.name} has no {trait}")

    async def channel(self, chat: Chat = "direct") -> ReplyChannel:
        """The channel of a chat, by writing there."""
        num = len(self.recorder.arrived)
        await self.harness.say("knock", chat=chat, mentions_bot=chat == "group")
        return (await self.recorder.wait_for(num + 1))[num][1]

    async def wait_for_text(self, text: str, *, chat: Chat = "direct") -> Shown:
        """Wait until a message of the bot shows exactly `text`."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                for shown in await self.harness.shown(chat):
                    if shown.text == text:
                        return shown
                await asyncio.sleep(0.005)


@pytest.fixture(params=sorted(HARNESSES))
def open_harness(request: pytest.FixtureRequest) -> OpenHarness:
    return HARNESSES[request.param]


@pytest.fixture
async def scene(request: pytest.FixtureRequest, open_harness: OpenHarness) -> AsyncIterator[Scene]:
    recorder = Recorder()
    commands = CommandTable(
        (
            Command(("persona", "use"), "Choose", greet, (Argument("name", "Who"),)),
            Command(
                ("look",),
                "Look at something",
                look,
                (Argument("times", "How often to say it", is_required=False),),
                takes_picture=True,
                is_about_message=True,
                only_looks=True,
            ),
        )
    )
    async with open_harness(recorder, commands) as harness:
        yield Scene(request.node.callspec.params["open_harness"], harness, recorder)


# --- what comes in


@pytest.mark.parametrize(
    "text", ["Hello", "👩‍👩‍👧 你好, “friend” & <b>bold</b>", "two\nlines", "1 < 2 `code` *stars* _lines_"]
)
async def test_a_message_arrives_as_it_was_said(scene: Scene, text: str) -> None:
    message_id = await scene.harness.say(text)
    ((message, _),) = await scene.recorder.wait_for()
    assert message.text == text
    assert message.message_id == message_id
    assert message.kind is ChatKind.DIRECT
    assert message.room.platform == message.author.platform == scene.harness.adapter.name
    assert message.author.user_id
    assert bool(message.author.display_name) == ("names" in scene.harness.traits)
    assert not message.author.is_bot
    assert message.files == ()
    assert message.reply_to is None


async def test_a_chat_is_one_room(scene: Scene) -> None:
    await scene.harness.say("one")
    await scene.harness.say("two")
    (one, _), (two, _) = await scene.recorder.wait_for(2)
    assert [one.text, two.text] == ["one", "two"]
    assert one.room == two.room
    assert one.author.user_id == two.author.user_id
    assert one.message_id != two.message_id


async def test_two_chats_are_two_rooms(scene: Scene) -> None:
    scene.needs("other")
    await scene.harness.say("one")
    await scene.harness.say("two", chat="other")
    (one, _), (two, _) = await scene.recorder.wait_for(2)
    assert one.room != two.room


async def test_a_picture_can_be_read(scene: Scene) -> None:
    data = a_picture()
    await scene.harness.say("look", picture=data)
    ((message, _),) = await scene.recorder.wait_for()
    assert message.text == "look"
    (file,) = message.files
    assert file.num_bytes in {None, len(data)}
    received = await file.read(len(data) + 100_000)
    assert Image.open(io.BytesIO(received)).size == (64, 48)


async def test_a_picture_without_words_arrives(scene: Scene) -> None:
    await scene.harness.say("", picture=a_picture())
    ((message, _),) = await scene.recorder.wait_for()
    assert message.text == ""
    assert len(message.files) == 1


async def test_a_download_stops_at_the_limit(scene: Scene) -> None:
    await scene.harness.say("look", picture=a_picture())
    ((message, _),) = await scene.recorder.wait_for()
    with pytest.raises(MediaError):
        await message.files[0].read(50)


async def test_the_message_replied_to_comes_along(scene: Scene) -> None:
    scene.needs("replies")
    earlier = await scene.harness.say("my cat", picture=a_picture())
    await scene.harness.say("what is it?", reply_to=earlier)
    _, (message, _) = await scene.recorder.wait_for(2)
    replied_to = message.reply_to
    assert replied_to is not None
    assert replied_to.message_id == earlier
    assert replied_to.text == "my cat"
    assert not replied_to.is_from_bot
    (file,) = replied_to.files
    assert Image.open(io.BytesIO(await file.read(1_000_000))).size == (64, 48)
    assert message.files == ()


async def test_a_reply_to_the_bot_names_its_message(scene: Scene) -> None:
    scene.needs("replies")
    sent = await (await scene.channel()).send("I am here.")
    await scene.harness.say("really?", reply_to=sent)
    message, _ = (await scene.recorder.wait_for(2))[1]
    assert message.reply_to is not None
    assert message.reply_to.message_id == sent
    assert message.reply_to.is_from_bot
    assert message.reply_to.text == "I am here."


async def test_a_group_is_told_apart_and_mentions_are_taken_out(scene: Scene) -> None:
    scene.needs("groups")
    await scene.harness.say("👋 you there?", chat="group", mentions_bot=True)
    ((message, _),) = await scene.recorder.wait_for()
    assert message.kind is ChatKind.GROUP
    assert message.mentions_bot
    assert message.text == "👋 you there?"


async def test_talk_in_a_group_mentions_nobody(scene: Scene) -> None:
    scene.needs("groups")
    await scene.harness.say("lovely weather", chat="group")
    ((message, _),) = await scene.recorder.wait_for()
    assert not message.mentions_bot


# --- what goes out


async def test_a_message_is_shown_and_changed(scene: Scene) -> None:
    channel = await scene.channel()
    message_id = await channel.send("Let me")
    assert (await scene.wait_for_text("Let me")).id == message_id
    await channel.edit(message_id, "Let me think.")
    await scene.wait_for_text("Let me think.")
    await channel.edit(message_id, "Let me think.")  # the same again is no error
    assert [shown.text for shown in await scene.harness.shown()] == ["Let me think."]


async def test_a_reply_points_at_its_message(scene: Scene) -> None:
    scene.needs("replies")
    message_id = await scene.harness.say("Hello")
    ((_, channel),) = await scene.recorder.wait_for()
    await channel.send("Hi.", reply_to=message_id)
    assert (await scene.wait_for_text("Hi.")).reply_to == message_id


@pytest.mark.parametrize("letter", ["a", "字", "👍"])
async def test_the_longest_text_is_accepted(scene: Scene, letter: str) -> None:
    channel = await scene.channel()
    longest = letter * (channel.limits.max_text_length // channel.limits.measure(letter))
    await channel.send(longest)
    await scene.wait_for_text(longest)


async def test_text_is_shown_as_it_is(scene: Scene) -> None:
    text = "1 < 2 & <b>so</b> [x](y) `a_b_c` \\* @everyone 👩‍👩‍👧\n\nEnd."
    await (await scene.channel()).send(text)
    await scene.wait_for_text(text)


async def test_typing_can_be_shown(scene: Scene) -> None:
    await (await scene.channel()).show_typing()


async def test_limits_are_sensible(scene: Scene) -> None:
    limits = (await scene.channel()).limits
    assert limits.max_text_length >= 128
    assert limits.edit_interval_s > 0
    assert limits.typing_interval_s > 0
    assert limits.max_file_bytes > 0


async def test_a_message_that_is_not_there_cannot_be_changed(scene: Scene) -> None:
    with pytest.raises(DeliveryError):
        await (await scene.channel()).edit("123456789", "Hello")


# --- how it runs


async def test_it_runs_and_stops(scene: Scene) -> None:
    assert scene.harness.adapter.status.state is AdapterState.RUNNING
    await scene.harness.stop()
    assert scene.harness.adapter.status.state is AdapterState.STOPPED


async def test_one_slow_chat_does_not_stop_another(scene: Scene) -> None:
    scene.needs("other")
    gate = asyncio.Event()

    async def react(message: IncomingMessage, channel: ReplyChannel) -> None:
        if message.text == "slow":
            await gate.wait()
        await channel.send(f"Re: {message.text}")

    scene.recorder.react = react
    await scene.harness.say("slow")
    await scene.harness.say("fast", chat="other")
    await scene.wait_for_text("Re: fast", chat="other")
    assert await scene.harness.shown() == []
    gate.set()
    await scene.wait_for_text("Re: slow")


async def test_messages_are_handed_on_in_order_without_waiting(scene: Scene) -> None:
    gate = asyncio.Event()

    async def react(_message: IncomingMessage, _channel: ReplyChannel) -> None:
        await gate.wait()

    scene.recorder.react = react
    for number in range(5):
        await scene.harness.say(f"m{number}")
    arrived = await scene.recorder.wait_for(5)
    assert [message.text for message, _ in arrived] == [f"m{number}" for number in range(5)]
    gate.set()


async def test_a_handler_that_breaks_its_promise_stops_nobody(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    async def react(message: IncomingMessage, channel: ReplyChannel) -> None:
        if message.text == "bad":
            raise ZeroDivisionError("a bug")
        await channel.send("still here")

    scene.recorder.react = react
    await scene.harness.say("bad")
    await scene.harness.say("good")
    await scene.wait_for_text("still here")
    assert "ZeroDivisionError" in caplog.text, "the log says what happened"


async def test_stopping_ends_what_is_being_answered(scene: Scene) -> None:
    async def react(_message: IncomingMessage, _channel: ReplyChannel) -> None:
        await asyncio.Event().wait()

    scene.recorder.react = react
    await scene.harness.say("slow")
    await scene.recorder.wait_for()
    async with asyncio.timeout(TIMEOUT_S):
        await scene.harness.stop()
    assert scene.recorder.num_cancelled == 1


async def test_commands_are_used_the_native_way(scene: Scene) -> None:
    name = scene.harness.adapter.name
    assert await scene.harness.use_command(("persona", "use"), {"name": "Luna Moth"}) == f"{name} direct Luna Moth"
    assert scene.recorder.arrived == [], "a command is no message"


async def test_a_commands_error_is_told(scene: Scene) -> None:
    assert await scene.harness.use_command(("persona", "use"), {"name": "nobody"}) == "nobody is not here; try somebody"


async def test_a_commands_picture_arrives(scene: Scene) -> None:
    answered = await scene.harness.ask(("look",), {})
    assert answered == Answered("Here is what I found.", (DRAWN.data,))


async def test_a_picture_can_be_given_to_a_command(scene: Scene) -> None:
    answered = await scene.harness.ask(("look",), {}, picture=a_picture())
    assert answered.text == "Here is what I found.\npicture 64 x 48"
    assert answered.pictures == (DRAWN.data, DRAWN.data)
    assert scene.recorder.arrived == [], "a command is no message"


async def test_a_command_knows_the_message_that_it_is_used_on(scene: Scene) -> None:
    scene.needs("replies")
    said = await scene.harness.say("my cat")
    sent = await (await scene.channel()).send("A nice one.")
    answered = await scene.harness.ask(("look",), {}, reply_to=said)
    assert answered.text == f"Here is what I found.\non {said} 'my cat' yours"
    answered = await scene.harness.ask(("look",), {}, reply_to=sent)
    assert answered.text == f"Here is what I found.\non {sent} 'A nice one.' mine"


async def test_a_long_answer_comes_with_its_picture(scene: Scene) -> None:
    answered = await scene.harness.ask(("look",), {"times": "150"})
    assert answered.text.replace("\n", "").count("Here is what I found.") == 150
    assert answered.pictures == (DRAWN.data,)


# --- all of it


async def test_a_picture_goes_in_and_an_answer_comes_out(open_harness: OpenHarness) -> None:
    options = ChatOptions(pacing=Pacing(first_wait_s=0.02))
    library = MemoryLibrary([a_persona("Luna"), a_persona("Max")])
    engine = EchoEngine(seconds_per_word=0.005)
    chat = ChatService(engine, library, MemoryConversations(), MemoryRooms(), MemoryAttachments(), options=options)
    async with open_harness(chat, build_commands(chat)) as harness:
        scene = Scene("", harness, Recorder())
        await harness.say("What do you see on this picture of mine?", picture=a_picture())
        await scene.wait_for_text("Luna heard (1 picture): What do you see on this picture of mine?")
        assert "I am Max" in await harness.use_command(("persona", "use"), {"name": "max"})
        await harness.say("And you?")
        await scene.wait_for_text("Max heard (1 earlier turn): And you?")


async def test_a_place_in_line_becomes_the_answer(open_harness: OpenHarness) -> None:
    options = ChatOptions(pacing=Pacing(first_wait_s=0.02, place_from_s=0.02))
    go = asyncio.Event()
    engine = ScriptedEngine(lambda _: (QueuePlace(3, 20.0), go, "Here I am."))
    store = MemoryConversations()
    library = MemoryLibrary([a_persona("Luna")])
    chat = ChatService(engine, library, store, MemoryRooms(), MemoryAttachments(), options=options)
    async with open_harness(chat, build_commands(chat)) as harness:
        scene = Scene("", harness, Recorder())
        await harness.say("Hello")
        await scene.wait_for_text("You are 3rd in line, about 20 s.")
        waiting = await harness.shown()
        go.set()
        await scene.wait_for_text("Here I am.")
        assert [shown.id for shown in await harness.shown()] == [shown.id for shown in waiting]
        assert "in line" not in "".join(shown.text for shown in await harness.shown())


async def test_a_place_in_line_is_replaced_where_no_answer_comes(open_harness: OpenHarness) -> None:
    options = ChatOptions(pacing=Pacing(first_wait_s=0.02, place_from_s=0.02))
    engine = ScriptedEngine(lambda _: (QueuePlace(3, 20.0), 0.3, EngineBusy("too long")))
    library = MemoryLibrary([a_persona("Luna")])
    chat = ChatService(engine, library, MemoryConversations(), MemoryRooms(), MemoryAttachments(), options=options)
    async with open_harness(chat, build_commands(chat)) as harness:
        scene = Scene("", harness, Recorder())
        await harness.say("Hello")
        await scene.wait_for_text("You are 3rd in line, about 20 s.")
        await scene.wait_for_text(TOO_BUSY)
        assert "in line" not in "".join(shown.text for shown in await harness.shown())
