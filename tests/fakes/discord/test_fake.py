"""What the fake does beyond what the adapter's tests use of it."""

import asyncio
import io

import aiohttp
import discord as library
import pytest
from discord.gateway import DiscordWebSocket
from discord.http import Route

from tests.fakes.discord import FakeDiscord


@pytest.fixture
async def fake(monkeypatch):
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", DiscordWebSocket.DEFAULT_GATEWAY)
    async with FakeDiscord() as fake:
        monkeypatch.setattr(Route, "BASE", fake.api_url)
        yield fake


@pytest.fixture
async def client(fake):
    async with library.Client(intents=library.Intents(guilds=True)) as client:
        await client.login(fake.token)
        yield client


async def test_upload(fake, client):
    dm = fake.add_dm(fake.add_user("ada"))
    target = client.get_partial_messageable(int(dm.id))
    sent = await target.send("a picture", file=library.File(io.BytesIO(b"pixels"), "a.png"))
    [attachment] = fake.messages[str(sent.id)].attachments
    assert (attachment.name, attachment.data) == ("a.png", b"pixels")
    assert await sent.attachments[0].read() == b"pixels"


async def test_direct_chat_is_opened(fake, client):
    ada = fake.add_user("ada")
    user = await client.http.start_private_message(int(ada.id))
    assert user["id"] == fake.add_dm(ada).id


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001])
async def test_impossible_text_is_refused(fake, client, text):
    target = client.get_partial_messageable(int(fake.add_dm(fake.add_user("ada")).id))
    with pytest.raises(library.HTTPException) as caught:
        await target.send(text)
    assert caught.value.status == 400


async def test_message_of_another_cannot_be_edited(fake, client):
    ada = fake.add_user("ada")
    dm = fake.add_dm(ada)
    said = fake.say(dm, ada, "mine")
    target = client.get_partial_messageable(int(dm.id))
    with pytest.raises(library.Forbidden):
        await target.get_partial_message(int(said.id)).edit(content="yours")
    assert said.content == "mine"


async def test_delay_serves_later(fake, client):
    fault = fake.fail_next("POST", "/channels/*/typing", delay_s=0.1)
    clock = asyncio.get_running_loop().time
    started = clock()
    await client.http.send_typing(int(fake.add_dm(fake.add_user("ada")).id))
    assert clock() - started >= 0.1
    assert fault.num_hits == len(fake.typing) == 1


async def test_waiting_in_vain_says_what_happened(fake, client):
    with pytest.raises(AssertionError, match=r"GET /users/@me 200"):
        await fake.wait_for(lambda: fake.typing, 0.1)


async def test_session_that_nobody_knows_cannot_be_resumed(fake):
    async with aiohttp.ClientSession() as session, session.ws_connect(fake.gateway_url) as socket:
        assert (await socket.receive_json())["op"] == 10
        await socket.send_json({"op": 6, "d": {"token": fake.token, "session_id": "unknown", "seq": 1}})
        assert await socket.receive_json() == {"op": 9, "d": False}
