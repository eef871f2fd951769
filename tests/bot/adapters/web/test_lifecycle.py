"""How the server begins and ends."""

import asyncio
import signal
import socket
from typing import Any

import httpx
import pytest
import uvicorn

from bot.adapters.base import AdapterState
from bot.errors import PlatformFatal
from tests.bot.adapters.web.conftest import adapter_for, fresh_page_library, serving, started
from tests.bot.adapters.web.rehearsal import RehearsalChat


async def test_a_taken_port_is_fatal_and_names_the_setting(chat: RehearsalChat) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, fresh_page_library():
        adapter = adapter_for(chat, port=other.getsockname()[1])
        with pytest.raises(PlatformFatal, match=r"set web\.port to a free port"):
            await adapter.run()
    assert adapter.status.state is AdapterState.FAILED
    assert "web.port" in adapter.status.detail


@pytest.mark.parametrize("changes", [{"host": "192.0.2.1"}, {"port": 70_000}])
async def test_an_impossible_address_is_fatal(chat: RehearsalChat, changes: dict[str, Any]) -> None:
    with fresh_page_library():
        adapter = adapter_for(chat, **changes)
        with pytest.raises(PlatformFatal, match=r"web\.host"):
            await adapter.run()


async def test_cancellation_ends_replies_and_the_server(chat: RehearsalChat) -> None:
    with fresh_page_library():
        adapter = adapter_for(chat)
        running = await started(adapter)
        url = adapter.url or ""
        async with httpx.AsyncClient(base_url=url, trust_env=False) as visitor:
            await visitor.get("/")
            chat.seconds_per_word = 60
            await visitor.post("/say", json={"text": "Hello"})
            async with asyncio.timeout(20):
                while not chat.received:
                    await asyncio.sleep(0.01)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            with pytest.raises(httpx.ConnectError):
                await visitor.get("/")
    assert adapter.status.state is AdapterState.STOPPED
    [room] = {message.room for message in chat.received}
    assert [turn.text for turn in await chat.history(room)][1:] == ["Hello", "Oh,"]


async def test_a_server_that_fails_shows_in_the_status(
    chat: RehearsalChat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_server: uvicorn.Server) -> None:
        raise RuntimeError("no more sockets")

    monkeypatch.setattr(uvicorn.Server, "main_loop", fail)
    with fresh_page_library():
        adapter = adapter_for(chat)
        with pytest.raises(PlatformFatal, match="ended by itself"):
            await asyncio.wait_for(adapter.run(), 10)
    assert adapter.status.state is AdapterState.FAILED
    assert "no more sockets" in caplog.text


async def test_it_says_where_it_is_and_leaves_signals_alone(chat: RehearsalChat) -> None:
    async with serving(chat) as adapter:
        assert adapter.url is not None
        assert adapter.url.startswith("http://127.0.0.1:")
        assert (adapter.status.state, adapter.status.detail) == (AdapterState.RUNNING, adapter.url)
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert not any(isinstance(getattr(handler, "__self__", None), uvicorn.Server) for handler in handlers)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
