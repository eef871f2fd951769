"""The server, over real sockets: who is let in, what it takes, and what is kept from whom."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.responses import PlainTextResponse
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from bot.adapters.web import WebAdapter
from bot.adapters.web.channel import MAX_FILE_BYTES
from bot.adapters.web.guard import Guard
from bot.adapters.web.server import _cookie_name
from bot.commands import ReplyPicture
from bot.types import PersonaCard
from tests.bot.adapters.web.conftest import serving
from tests.bot.adapters.web.rehearsal import CARDS, GREETINGS, LINES, RehearsalChat

# One server for all of these tests: each visitor is a browser of its own.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = b"\x89PNG\r\n\x1a\n and more"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[tuple[WebAdapter, RehearsalChat]]:
    chat = RehearsalChat()
    async with serving(chat) as adapter:
        yield adapter, chat


@pytest.fixture
def served(stage: tuple[WebAdapter, RehearsalChat]) -> WebAdapter:
    return stage[0]


@pytest.fixture
def chat(stage: tuple[WebAdapter, RehearsalChat]) -> RehearsalChat:
    chat = stage[1]
    chat.cards, chat.lines = CARDS, dict(LINES)
    chat.received.clear()
    return chat


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(served: WebAdapter, chat: RehearsalChat) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who has opened the page."""
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as client:
        assert (await client.get("/")).status_code == 200
        yield client


async def upload(visitor: httpx.AsyncClient, data: bytes = PNG, name: str = "dog.png") -> str:
    answer = await visitor.post("/upload", params={"name": name}, content=data, headers={"Content-Type": "image/png"})
    return str(answer.json()["id"])


async def answered(chat: RehearsalChat, num_messages: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(chat.received) < num_messages or any("reply" in task.get_name() for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


async def test_nothing_is_written_beside_the_bot(visitor: httpx.AsyncClient) -> None:
    assert not await asyncio.to_thread(Path(".nicegui").exists)


async def test_requests_are_not_logged(visitor: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await visitor.get("/static/page.css")
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


# The page


async def test_the_page_shows_the_greeting(visitor: httpx.AsyncClient) -> None:
    page = await visitor.get("/")
    assert "meaning" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"


async def test_the_page_names_no_other_host(visitor: httpx.AsyncClient) -> None:
    page = (await visitor.get("/")).text
    for name in ("page.css", "page.js", "favicon.svg"):
        page += (await visitor.get(f"/static/{name}")).text
    addresses = {part.split("/")[0].split("'")[0] for part in page.replace("\\/", "/").split("://")[1:]}
    assert addresses <= {"www.w3.org"}


async def test_the_cookie_is_signed_and_out_of_reach_of_scripts(served: WebAdapter) -> None:
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as client:
        cookie = (await client.get("/")).headers["set-cookie"]
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        [name] = client.cookies
        client.cookies.clear()
        client.cookies.set(name, "eyJpZCI6ICJhbm4ifQ==.forged.signature")
        assert (await client.post("/say", json={"text": "Hello"})).status_code == 403


async def test_two_bots_on_one_machine_leave_each_other_their_cookies() -> None:
    names = {_cookie_name("one secret"), _cookie_name("another secret")}
    assert len(names) == 2


# Talking


async def test_a_message_with_a_picture_reaches_the_handler(visitor: httpx.AsyncClient, chat: RehearsalChat) -> None:
    upload_id = await upload(visitor, name="mein Hund.png")
    assert (await visitor.get(f"/sent/{upload_id}")).content == PNG
    answer = await visitor.post("/say", json={"text": "Look", "uploads": [upload_id]})
    await answered(chat)
    [message] = chat.received
    assert answer.json() == {"id": message.message_id}
    assert (message.text, message.files[0].name, message.files[0].mime) == ("Look", "mein Hund.png", "image/png")
    [question] = [turn for turn in await chat.history(message.room) if turn.attachments]
    picture = await visitor.get(f"/picture/{question.attachments[0].digest}")
    assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
    assert picture.headers["content-security-policy"].startswith("sandbox")


async def test_reloading_shows_the_conversation(visitor: httpx.AsyncClient, chat: RehearsalChat) -> None:
    await visitor.post("/say", json={"text": "An unmistakable question"})
    await answered(chat)
    page = (await visitor.get("/")).text
    assert "An unmistakable question" in page
    assert "Patient Shepherd" in page


@pytest.mark.parametrize(
    "hostile", ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "`${alert(1)}`"]
)
async def test_hostile_text_stays_text(visitor: httpx.AsyncClient, chat: RehearsalChat, hostile: str) -> None:
    chat.lines["mina"] = f"I say {hostile}"
    await visitor.post("/say", json={"text": f"You say {hostile}"})
    await answered(chat)
    page = (await visitor.get("/")).text
    assert "You say" in page
    assert hostile not in page


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[]", b'{"text": 3}', b'{"uploads": "x"}', b'{"uploads": [3]}', b"\xff\xfe{", b"[" * 60_000],
    ids=lambda body: repr(body[:16]),
)
async def test_a_malformed_message_is_refused(visitor: httpx.AsyncClient, chat: RehearsalChat, body: bytes) -> None:
    answer = await visitor.post("/say", content=body)
    assert answer.status_code == 400
    assert answer.json() == {"error": "this is no message"}
    assert chat.received == []


async def test_half_an_emoji_breaks_nothing(visitor: httpx.AsyncClient, chat: RehearsalChat) -> None:
    answer = await visitor.post("/say", content=rb'{"text": "cut \ud83d", "uploads": ["\ud83d"]}')
    assert "attach it again" in answer.json()["error"]
    await visitor.post("/say", content=rb'{"text": "cut \ud83d"}')
    await answered(chat)
    assert [message.text for message in chat.received] == ["cut ?"]
    assert (await visitor.get("/")).status_code == 200


async def test_a_lost_upload_is_explained(visitor: httpx.AsyncClient) -> None:
    answer = await visitor.post("/say", json={"text": "Look", "uploads": ["gone"]})
    assert answer.status_code == 400
    assert "attach it again" in answer.json()["error"]


async def test_a_file_over_the_limit_is_refused_without_being_kept(visitor: httpx.AsyncClient) -> None:
    answer = await visitor.post("/upload", params={"name": "big.png"}, content=bytes(MAX_FILE_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json() == {"error": "big.png is too large: at most 20 MB, please"}


async def test_a_message_over_the_limit_is_refused(visitor: httpx.AsyncClient) -> None:
    answer = await visitor.post("/say", content=json.dumps({"text": "x" * 2**20}))
    assert answer.status_code == 400
    assert "too large" in answer.json()["error"]


async def test_an_upload_can_be_taken_back(visitor: httpx.AsyncClient) -> None:
    upload_id = await upload(visitor)
    assert (await visitor.delete(f"/upload/{upload_id}")).status_code == 204
    assert (await visitor.get(f"/sent/{upload_id}")).status_code == 404


@pytest.mark.parametrize("data", [b"<svg onload='alert(1)'/>", b"<html><script>alert(1)</script>", b""])
async def test_only_pictures_are_served_back(visitor: httpx.AsyncClient, data: bytes) -> None:
    upload_id = await upload(visitor, data)
    assert (await visitor.get(f"/sent/{upload_id}")).status_code == 404


# Keeping people apart


async def test_pictures_of_others_are_out_of_reach(
    served: WebAdapter, visitor: httpx.AsyncClient, chat: RehearsalChat
) -> None:
    sent = await upload(visitor)
    await visitor.post("/say", json={"text": "Look", "uploads": [sent]})
    waiting = await upload(visitor)
    await answered(chat)
    [question] = [turn for turn in await chat.history(chat.received[0].room) if turn.attachments]
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as stranger:
        path = f"/picture/{question.attachments[0].digest}"
        assert (await stranger.get(path)).status_code == 403
        await stranger.get("/")
        assert (await stranger.get(path)).status_code == 404
        assert (await stranger.get(f"/sent/{waiting}")).status_code == 404
        assert (await stranger.post("/say", json={"text": "x", "uploads": [waiting]})).status_code == 400
    assert (await visitor.get(path)).status_code == 200


async def test_pictures_that_a_command_drew_are_for_whoever_asked(
    served: WebAdapter, visitor: httpx.AsyncClient, chat: RehearsalChat
) -> None:
    await visitor.post("/say", json={"text": "Look", "uploads": [await upload(visitor)]})
    await answered(chat)
    session = served._sessions.of(chat.received[0].room.chat_id)
    path = session._keep_drawn(ReplyPicture("why.png", PNG)).url or ""
    own = await visitor.get(path)
    assert (own.status_code, own.content, own.headers["content-type"]) == (200, PNG, "image/png")
    assert "sandbox" in own.headers["content-security-policy"]
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as stranger:
        await stranger.get("/")
        assert (await stranger.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/say", "/upload"])
async def test_writing_needs_a_session(served: WebAdapter, path: str) -> None:
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as stranger:
        assert (await stranger.post(path, content=b"{}")).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "[::", "localhost.", "0.0.0.0"])
async def test_other_names_are_refused(served: WebAdapter, host: str) -> None:
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as client:
        answer = await client.get("/", headers={"Host": host})
    assert answer.status_code == 403
    assert "Commedia" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
async def test_this_machines_names_are_welcome(served: WebAdapter, host: str) -> None:
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as client:
        assert (await client.get("/", headers={"Host": f"{host}:8080"})).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("192.168.1.5:8765", 200),
        ("[fe80::1]:8765", 200),
        ("localhost", 200),
        ("evil.example", 403),
        ("1.2.3.4.evil", 403),
    ],
)
async def test_open_to_a_network_every_address_is_welcome_but_no_name(host: str, status: int) -> None:
    transport = httpx.ASGITransport(Guard(PlainTextResponse("inside"), "0.0.0.0"))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        assert (await client.get("/")).status_code == status


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://[", "http://127.0.0.1:1", "http://localhost"]
)
async def test_other_sites_cannot_write(visitor: httpx.AsyncClient, chat: RehearsalChat, origin: str) -> None:
    answer = await visitor.post("/say", json={"text": "Hello"}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert chat.received == []


async def test_the_own_page_can_write(served: WebAdapter, visitor: httpx.AsyncClient, chat: RehearsalChat) -> None:
    answer = await visitor.post("/say", json={"text": "Hello"}, headers={"Origin": served.url or ""})
    assert answer.status_code == 200
    await answered(chat)


async def test_sockets_are_only_for_the_own_page(served: WebAdapter) -> None:
    address = (served.url or "").replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    with pytest.raises(InvalidStatus):
        await connect(address, origin="https://evil.example", proxy=None)  # type: ignore[arg-type]
    async with connect(address, origin=served.url, proxy=None) as accepted:  # type: ignore[arg-type]
        assert str(await accepted.recv()).startswith("0")


# Faces


async def test_a_face_comes_with_the_type_of_its_bytes(
    visitor: httpx.AsyncClient, chat: RehearsalChat, tmp_path: Path
) -> None:
    face = tmp_path / "face.jpg"
    face.write_bytes(PNG)
    chat.cards = (PersonaCard("ann", "Ann", "", "en", face),)
    answer = await visitor.get("/avatar/ann")
    assert (answer.content, answer.headers["content-type"]) == (PNG, "image/png")


@pytest.mark.parametrize("content", [b"<svg onload='alert(1)'/>", None])
async def test_a_face_that_cannot_be_shown_is_drawn(
    visitor: httpx.AsyncClient, chat: RehearsalChat, tmp_path: Path, content: bytes | None
) -> None:
    face = tmp_path / "face.png"
    if content is not None:
        face.write_bytes(content)
    chat.cards = (PersonaCard("ann", "Ann", "", "en", face),)
    answer = await visitor.get("/avatar/ann")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert ">A</text>" in answer.text
    assert "alert" not in answer.text


async def test_nobody_has_no_face(visitor: httpx.AsyncClient) -> None:
    assert (await visitor.get("/avatar/nobody")).status_code == 404


async def test_a_page_without_personas_still_opens(served: WebAdapter, chat: RehearsalChat) -> None:
    chat.cards = ()
    async with httpx.AsyncClient(base_url=served.url or "", trust_env=False) as client:
        page = await client.get("/")
    assert "put one into personas/" in page.text
    assert GREETINGS["mina"] not in page.text
