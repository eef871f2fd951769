"""The default model in `commedia run`, over both fakes: what a newcomer gets."""

import asyncio
import shutil
from pathlib import Path

import pytest

from engine.models.store import ModelStore
from tests.process.platforms import Person, Said, fake_platform
from tests.process.running import running_bot

pytestmark = [pytest.mark.process, pytest.mark.weights, pytest.mark.timeout(300)]

PICTURES = Path(__file__).parents[1] / "pictures"
SETTLED_S = 3.0


async def test_two_personas_answer_about_a_picture_on_both_platforms(
    models: ModelStore, cache_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(cache_dir / "models", tmp_path / "cache" / "models", copy_function=_link)
    # The decoder is prepared for this CPU once, here or by whichever test comes first.
    (cache_dir / "openvino").mkdir(exist_ok=True)
    (tmp_path / "cache" / "openvino").symlink_to((cache_dir / "openvino").resolve())
    photo = (PICTURES / "coffee.jpg").read_bytes()
    replies = []
    async with fake_platform("discord") as discord, fake_platform("telegram") as telegram:
        environment = {**discord.environment, **telegram.environment, "COMMEDIA_ENGINE__BACKEND": "local"}
        async with running_bot(tmp_path, **environment) as bot:
            for platform, persona, name in ((discord, "okoro", "Ms Okoro"), (telegram, "june", "June")):
                await platform.wait_until_connected()
                ann = platform.person("ann")
                ann.command("persona", "use", name=persona)
                num_heard = len(await _heard(ann, 1))
                ann.say("Look, what is this?", photo=photo)
                reply = (await _settled(ann, num_heard + 1))[-1].text
                print(f"{platform.name}, {name}: {reply}")  # noqa: T201 - for whoever reads along, with -s
                replies.append(reply)
            assert "Traceback" not in bot.log
            assert "has a problem" not in " ".join(replies)
    assert all(len(reply.split()) > 1 for reply in replies)
    assert replies[0] != replies[1]


async def _heard(person: Person, num_messages: int) -> list[Said]:
    """What the person has heard, once there are that many messages."""
    async with asyncio.timeout(120):
        while len(heard := person.heard()) < num_messages:
            await asyncio.sleep(0.05)
    return heard


async def _settled(person: Person, num_messages: int) -> list[Said]:
    """The same, once the last one has stopped growing."""
    heard = await _heard(person, num_messages)
    async with asyncio.timeout(120):
        while True:
            await asyncio.sleep(SETTLED_S)
            if heard == (heard := person.heard()):
                return heard


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
