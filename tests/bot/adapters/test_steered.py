"""Steering as people do it on each platform: the real chat behind the real adapter, on the platform's fake."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from bot.chat import ChatOptions, ChatService
from bot.commands import build_commands
from bot.replies import Pacing
from bot.types import ChatKind
from tests.bot.adapters.harness import Chat, Harness, Shown, Trait
from tests.bot.adapters.test_contract import HARNESSES
from tests.bot.adapters.web.harness import open_web
from tests.fakes.engine import ScriptedEngine
from tests.fakes.personas import MemoryLibrary, a_persona
from tests.fakes.store import MemoryAttachments, MemoryConversations, MemoryRooms

PACING = Pacing(first_wait_s=0.01, max_attempts=3, backoff_s=0.01)


@dataclass
class Scene:
    """A platform, the chat behind it, and an engine whose replies are numbered."""

    harness: Harness
    chat: ChatService
    engine: ScriptedEngine
    rooms: MemoryRooms

    def needs(self, trait: Trait) -> None:
        if trait not in self.harness.traits:
            pytest.skip(f"{self.harness.adapter.name} has no {trait}")

    async def wait_for(self, is_shown: Callable[[list[Shown]], bool], chat: Chat = "direct") -> list[Shown]:
        """Wait until people see that, and return the bot's messages."""
        shown: list[Shown] = []
        try:
            async with asyncio.timeout(30):
                while not is_shown(shown := await self.harness.shown(chat)):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            pytest.fail(f"the bot shows {shown}")
        return shown

    async def wait_for_texts(self, *texts: str, chat: Chat = "direct") -> list[Shown]:
        """Wait until the bot's messages read just like that."""
        return await self.wait_for(lambda shown: [one.text for one in shown] == list(texts), chat)

    async def asked(self, chat: Chat = "direct") -> Shown:
        """Ask something, and wait for the whole reply, which has buttons."""
        self.needs("buttons")
        num_before = len(await self.harness.shown(chat))
        await self.harness.say("Tell me", chat=chat, mentions_bot=chat == "group")
        shown = await self.wait_for(lambda shown: len(shown) > num_before and bool(shown[-1].buttons), chat)
        return shown[-1]


@pytest.fixture(params=sorted(HARNESSES))
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    numbers = itertools.count(1)
    engine = ScriptedEngine(lambda _request: (f"Reply {next(numbers)}.",))
    conversations = MemoryConversations()
    rooms = MemoryRooms(conversations=conversations)
    options = ChatOptions(pacing=PACING, has_controls=frozenset(ChatKind))
    library = MemoryLibrary([a_persona("Luna"), a_persona("Max")])
    chat = ChatService(engine, library, conversations, rooms, MemoryAttachments(), options=options)
    commands = build_commands(chat, steering=chat.steering)
    platform = (
        open_web(chat, commands, browser=chat) if request.param == "web" else HARNESSES[request.param](chat, commands)
    )
    async with platform as harness:
        yield Scene(harness, chat, engine, rooms)
        await chat.aclose()


async def test_a_press_brings_another_version_and_the_one_before(scene: Scene) -> None:
    reply = await scene.asked()
    assert reply.buttons == ("🔄", "⏩", "✏️", "↩️", "🗑️")
    await scene.harness.press(reply.id, "🔄")
    [reply] = await scene.wait_for(lambda shown: shown[-1].buttons[:1] == ("◀ 2/2",))
    assert reply.text == "Reply 2."
    await scene.harness.press(reply.id, "◀ 2/2")
    [reply] = await scene.wait_for(lambda shown: shown[-1].buttons[:1] == ("▶",))
    assert reply.text == "Reply 1."
    assert len(scene.engine.requests) == 2


async def test_a_press_makes_a_reply_longer(scene: Scene) -> None:
    scene.engine.script = lambda _request: ("Once upon",)
    reply = await scene.asked()
    scene.engine.script = lambda _request: (" a time.",)
    await scene.harness.press(reply.id, "⏩")
    await scene.wait_for_texts("Once upon a time.")


async def test_presses_take_messages_away(scene: Scene) -> None:
    await scene.asked()
    second = await scene.asked()
    await scene.harness.press(second.id, "🗑️")
    await scene.wait_for_texts("Reply 1.")
    third = await scene.asked()
    await scene.harness.press(third.id, "↩️")
    await scene.wait_for_texts("Reply 1.")
    await scene.asked()
    heard = [turn.text for turn in scene.engine.requests[-1].turns]
    assert heard == ["Tell me", "Reply 1.", "Tell me", "Tell me"], "the second question is there, the third is not"


async def test_a_stranger_cannot_press(scene: Scene) -> None:
    reply = await scene.asked("group")
    await scene.harness.press(reply.id, "🗑️", chat="group", by_other=True)
    await scene.harness.press(reply.id, "🔄", chat="group")
    shown = await scene.wait_for(lambda shown: "Reply 2." in [one.text for one in shown], "group")
    assert "Reply 2." in [one.text for one in shown if one.id == reply.id], "it was changed, not deleted"
    assert len(scene.engine.requests) == 2


async def test_buttons_stay_with_the_last_reply(scene: Scene) -> None:
    await scene.asked()
    await scene.harness.say("And then?")
    await scene.wait_for(lambda shown: len(shown) == 2 and not shown[0].buttons and bool(shown[1].buttons))


async def test_the_reply_follows_an_edit(scene: Scene) -> None:
    scene.needs("edits")
    said = await scene.harness.say("I like cats")
    await scene.wait_for_texts("Reply 1.")
    await scene.harness.edit_said(said, "I like dogs")
    await scene.wait_for_texts("Reply 2.")
    assert scene.engine.requests[-1].turns[-1].text == "I like dogs"


async def test_a_deleted_message_takes_its_reply_along(scene: Scene) -> None:
    scene.needs("deletions")
    said = await scene.harness.say("I like cats")
    await scene.wait_for_texts("Reply 1.")
    await scene.harness.delete_said(said)
    await scene.wait_for_texts()


async def test_an_emoji_asks_for_another_version(scene: Scene) -> None:
    scene.needs("reactions")
    reply = await scene.asked("group")
    await scene.harness.react(reply.id, "🔁", chat="group")
    await scene.wait_for(lambda shown: shown[-1].text == "Reply 2.", "group")


async def test_commands_do_the_same(scene: Scene) -> None:
    await scene.harness.say("Tell me")
    await scene.wait_for(lambda shown: shown[-1:] != [] and shown[-1].text == "Reply 1.")
    await scene.harness.use_command(("regenerate",), {})
    await scene.wait_for(lambda shown: any(one.text == "Reply 2." for one in shown))
    assert not any(one.text == "Reply 1." for one in await scene.harness.shown())
