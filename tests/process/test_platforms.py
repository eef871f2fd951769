"""The real clients of Discord and Telegram, in `commedia run` as a process, against loopback fakes."""

import asyncio
import io
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image

from tests.process.platforms import Platform, fake_platform
from tests.process.running import running_bot

pytestmark = pytest.mark.process


@pytest.fixture(params=["discord", "telegram"])
async def platform(request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    async with fake_platform(request.param) as platform:
        yield platform


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Platform]]:
    """One process on both platforms, for tests that leave it as it was: each has people of its own."""
    async with (
        fake_platform("discord") as discord,
        fake_platform("telegram") as telegram,
        running_bot(tmp_path_factory.mktemp("running"), **discord.environment, **telegram.environment),
    ):
        for platform in (discord, telegram):
            await platform.wait_until_connected()
        yield {"discord": discord, "telegram": telegram}


@pytest.fixture(params=["discord", "telegram"])
def connected(request: pytest.FixtureRequest, running: dict[str, Platform]) -> Platform:
    return running[request.param]


together = pytest.mark.asyncio(loop_scope="module")


def photo(colour: str = "brown") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (320, 240), colour).save(file, "JPEG")
    return file.getvalue()


def words(count: int) -> str:
    return " ".join(f"word{number}" for number in range(count))


@together
async def test_a_picture_goes_in_and_a_streamed_reply_comes_out(connected: Platform) -> None:
    ann = connected.person("ann")
    ann.say(f"look {words(40)} end", photo=photo())
    reply = await ann.wait_for("end")
    assert "heard (1 picture): look" in reply.text
    assert len(reply.versions) > 1
    assert all(reply.text.startswith(version) for version in reply.versions)
    assert len(ann.heard()) == 1


@together
async def test_a_reply_to_a_picture_shows_the_picture(connected: Platform) -> None:
    ann = connected.person("ann")
    picture = ann.say("first", photo=photo())
    await ann.wait_for("first")
    ann.say("and again", reply_to=picture)
    assert "(1 picture, 2 earlier turns)" in (await ann.wait_for("and again")).text


@together
async def test_the_menu_is_there_and_a_persona_can_be_chosen(connected: Platform) -> None:
    assert connected.num_commands() >= 3
    ann = connected.person("ann")
    ann.command("persona", "list")
    listed = await ann.wait_for("Grub")
    assert "Tomás" in listed.text
    ann.command("persona", "use", name="grub")
    ann.say("who are you")
    assert (await ann.wait_for("who are you")).text.startswith("Grub heard")


async def test_a_restart_keeps_history_persona_and_answers_nothing_twice(platform: Platform, tmp_path: Path) -> None:
    ann = platform.person("ann")
    async with running_bot(tmp_path, **platform.environment) as bot:
        await platform.wait_until_connected()
        ann.command("persona", "use", name="grub")
        ann.say("remember me")
        await ann.wait_for("remember me")
        assert await bot.stop() == 0
    num_heard = len(ann.heard())
    async with running_bot(tmp_path, **platform.environment) as bot:
        await bot.wait_for_log(f"{platform.name} is running")
        ann.command("start")
        assert "Grub is here, and remembers you" in (await ann.wait_for("remembers you")).text
        assert len(ann.heard()) == num_heard + 1


async def test_a_kill_in_mid_reply_loses_no_message_and_doubles_no_reply(platform: Platform, tmp_path: Path) -> None:
    ann = platform.person("ann")
    async with running_bot(tmp_path, **platform.environment) as bot:
        await platform.wait_until_connected()
        ann.say(f"precious {words(40)} end")
        await ann.wait_for("word5")
        await bot.kill()
    async with running_bot(tmp_path, **platform.environment) as bot:
        await bot.wait_for_log(f"{platform.name} is running")
        ann.say("next")
        assert "2 earlier turns" in (await ann.wait_for("next")).text
    replies = [said.text for said in ann.heard() if "precious" in said.text and said.text.endswith("end")]
    assert replies == [f"Grub heard: precious {words(40)} end"]
    if platform.name == "discord":
        assert len(ann.heard()) == 2, "the reply goes on in the message in which it broke off"


@together
async def test_a_slow_chat_does_not_hold_up_another(connected: Platform) -> None:
    slow, quick = connected.person("slow"), connected.person("quick")
    slow.say(f"{words(50)} finally")
    await slow.wait_for("word1")
    quick.say("hello")
    await quick.wait_for("hello")
    assert not any("finally" in said.text for said in slow.heard())
    await slow.wait_for("finally")


async def test_a_wrong_token_stops_only_its_platform(tmp_path: Path) -> None:
    wrong = "123456789:AAE-abcdefghijklmnopqrstuvwxyz01234"
    async with fake_platform("discord") as discord, fake_platform("telegram") as telegram:
        environment = {**discord.environment, **telegram.environment, "TELEGRAM_TOKEN": wrong}
        async with running_bot(tmp_path, **environment) as bot:
            await bot.wait_for_log("telegram is off: .*BotFather")
            await discord.wait_until_connected()
            ann = discord.person("ann")
            ann.say("still there?")
            await ann.wait_for("still there?")
        assert wrong not in bot.log
        assert "Traceback" not in bot.log


async def test_ctrl_c_lets_a_reply_end(platform: Platform, tmp_path: Path) -> None:
    async with running_bot(tmp_path, **platform.environment) as bot:
        await platform.wait_until_connected()
        ann = platform.person("ann")
        ann.say(words(40))
        await ann.wait_for("word3")
        assert await bot.stop(signal.SIGINT) == 0
        assert "word39" in ann.heard()[-1].text
        assert "Traceback" not in bot.log
        assert "Stopped." in bot.log


async def test_a_reply_that_takes_too_long_is_broken_off_cleanly(platform: Platform, tmp_path: Path) -> None:
    async with running_bot(tmp_path, COMMEDIA_ENGINE__DRAIN_S="0.5", **platform.environment) as bot:
        await platform.wait_until_connected()
        ann = platform.person("ann")
        ann.say(words(300))
        await ann.wait_for("word3")
        started = time.monotonic()
        assert await bot.stop(signal.SIGTERM) == 0
        assert time.monotonic() - started < 10
        assert "Traceback" not in bot.log
        assert "engine.drain_s" in bot.log
        assert "Stopped." in bot.log


async def test_a_second_ctrl_c_ends_it_at_once(platform: Platform, tmp_path: Path) -> None:
    async with running_bot(tmp_path, **platform.environment) as bot:
        await platform.wait_until_connected()
        ann = platform.person("ann")
        ann.say(words(300))
        await ann.wait_for("word3")
        started = time.monotonic()
        stopping = asyncio.create_task(bot.stop(signal.SIGINT))
        await bot.wait_for_log("press Ctrl-C again")
        assert await bot.stop(signal.SIGINT) == 130
        assert await stopping == 130
        assert time.monotonic() - started < 10


@together
async def test_a_hostile_picture_is_refused_with_words(connected: Platform) -> None:
    ann = connected.person("ann")
    ann.say("look", photo=b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    refusal = await ann.wait_for("photo" if connected.name == "discord" else "SVG")
    assert "heard" not in refusal.text
    ann.say("and now without")
    await ann.wait_for("and now without")
