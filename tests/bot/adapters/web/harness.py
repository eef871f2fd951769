"""The page for the contract suite: two browsers over HTTP, and the bubbles that they show.

`open_web` is its entry in `HARNESSES` of `tests/bot/adapters/test_contract.py`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import httpx

from bot.adapters.base import ConversationBrowser, MessageHandler
from bot.adapters.web import WebAdapter
from bot.adapters.web.session import Session
from bot.adapters.web.transcript import Speaker
from bot.commands import CommandTable
from bot.errors import BotError
from bot.types import PersonaCard, Room, StoredTurn
from tests.bot.adapters.harness import Answered, Chat, Shown, Trait
from tests.bot.adapters.web.conftest import SECRET, fresh_page_library, started


class QuietBrowser:
    """A `ConversationBrowser` without memory, and so without a greeting: the contract is about what adapters do."""

    def personas(self) -> tuple[PersonaCard, ...]:
        return (PersonaCard("luna", "Luna", "", "en"),)

    async def chosen(self, room: Room) -> str:
        return "luna"

    async def choose(self, room: Room, persona_id: str) -> None:
        """There is nobody else."""

    async def history(self, room: Room, *, max_turns: int = 200) -> list[StoredTurn]:
        return []

    async def start_over(self, room: Room) -> None:
        """There is nothing to forget."""

    async def picture(self, room: Room, digest: str) -> bytes:
        raise BotError("no pictures here")


class WebHarness:
    """People in front of two browsers, and the adapter that serves them."""

    traits: frozenset[Trait] = frozenset({"other"})

    def __init__(
        self, adapter: WebAdapter, running: "asyncio.Task[None]", browsers: Mapping[str, httpx.AsyncClient]
    ) -> None:
        self.adapter = adapter
        self._running = running
        self._browsers = browsers
        sessions = list(adapter._sessions._by_id.values())
        self._sessions: dict[str, Session] = dict(zip(browsers, sessions, strict=True))

    async def say(
        self,
        text: str,
        *,
        chat: Chat = "direct",
        picture: bytes | None = None,
        reply_to: str | None = None,
        mentions_bot: bool = False,
    ) -> str:
        browser = self._browsers[chat]
        uploads = []
        if picture is not None:
            uploads.append((await browser.post("/upload?name=picture.png", content=picture)).json()["id"])
        answer = await browser.post("/say", json={"text": text, "uploads": uploads})
        return str(answer.json()["id"])

    async def shown(self, chat: Chat = "direct") -> list[Shown]:
        bubbles = self._sessions[chat].transcript
        return [Shown(bubble.id, bubble.text) for bubble in bubbles if bubble.speaker is Speaker.PERSONA]

    async def use_command(self, path: tuple[str, ...], arguments: Mapping[str, str]) -> str:
        await self.say(" ".join(("/" + path[0], *path[1:], *arguments.values())))
        return next((bubble.text for bubble in reversed(list(self._sessions["direct"].transcript))), "")

    async def ask(
        self,
        path: tuple[str, ...],
        arguments: Mapping[str, str],
        *,
        picture: bytes | None = None,
        reply_to: str | None = None,
    ) -> Answered:
        session, browser = self._sessions["direct"], self._browsers["direct"]
        await self.say(" ".join(("/" + path[0], *path[1:], *arguments.values())), picture=picture)
        async with asyncio.timeout(20):
            while session.is_answering:
                await asyncio.sleep(0.005)
        answer = list(session.transcript)[-1]
        fetched = [await browser.get(shown.url or "") for shown in answer.pictures]
        return Answered(answer.text, tuple(response.content for response in fetched if response.status_code == 200))

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})


@contextlib.asynccontextmanager
async def open_web(
    handler: MessageHandler, commands: CommandTable, *, browser: ConversationBrowser | None = None
) -> AsyncIterator[WebHarness]:
    """The page on a free port, open in two browsers; it shows the conversations of `browser`."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(fresh_page_library())
        adapter = WebAdapter(
            host="127.0.0.1",
            port=0,
            handler=handler,
            browser=browser or QuietBrowser(),
            commands=commands,
            storage_secret=SECRET,
        )
        running = await started(adapter)
        browsers = {}
        for chat in ("direct", "other"):
            client = httpx.AsyncClient(base_url=adapter.url or "", trust_env=False)
            browsers[chat] = await stack.enter_async_context(client)
            await client.get("/")
        harness = WebHarness(adapter, running, browsers)
        try:
            yield harness
        finally:
            await harness.stop()
