"""What the page's tests share: a chat without a model, and a page that is really served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from nicegui import Client
from nicegui.testing.general import nicegui_reset_globals

from bot.adapters.web import WebAdapter
from tests.bot.adapters.web.rehearsal import RehearsalChat, rehearsal_commands

SECRET = "a secret of thirty-two characters"


@contextlib.contextmanager
def fresh_page_library() -> Iterator[None]:
    """NiceGUI keeps one page for the whole process: each test begins with none."""
    with nicegui_reset_globals():
        try:
            yield
        finally:
            # Otherwise it would drop the page's modules, and later tests would meet second copies of them.
            Client.page_routes.clear()


@pytest.fixture
def chat() -> RehearsalChat:
    return RehearsalChat()


async def started(adapter: WebAdapter) -> "asyncio.Task[None]":
    """Run `adapter` until it serves."""
    running = asyncio.create_task(adapter.run())
    async with asyncio.timeout(20):
        while adapter.url is None and not running.done():
            await asyncio.sleep(0.01)
    if running.done():
        running.result()
    return running


def adapter_for(chat: RehearsalChat, **changes: Any) -> WebAdapter:
    """An adapter on a free port, unless told otherwise."""
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "storage_secret": SECRET} | changes
    return WebAdapter(handler=chat, browser=chat, commands=rehearsal_commands(chat), **settings)


@contextlib.asynccontextmanager
async def serving(chat: RehearsalChat) -> AsyncIterator[WebAdapter]:
    """A page that is really served."""
    with fresh_page_library():
        adapter = adapter_for(chat)
        running = await started(adapter)
        try:
            yield adapter
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
