"""What `commedia run` says and does where something is missing or wrong."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.process.running import running_bot

pytestmark = pytest.mark.process


async def test_without_tokens_it_serves_the_page_and_says_how_to_add_platforms(tmp_path: Path) -> None:
    async with running_bot(tmp_path) as bot:
        url = (await bot.wait_for_log(r"http://127\.0\.0\.1:\d+")).group()
        assert "DISCORD_TOKEN" in bot.log
        assert "TELEGRAM_TOKEN" in bot.log
        async with httpx.AsyncClient() as client:
            page = await client.get(url)
        assert page.status_code == 200
        assert "Commedia" in page.text
        assert await bot.stop(signal.SIGTERM) == 0
        assert "Traceback" not in bot.log


async def test_a_second_process_on_the_same_home_is_refused(tmp_path: Path) -> None:
    async with running_bot(tmp_path) as first:
        await first.wait_for_log("http://")
        async with running_bot(tmp_path) as second:
            assert await second.ended() == 1
            assert "Another `commedia run`" in second.log


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"COMMEDIA_WEB__PORT": "http"}, "COMMEDIA_WEB__PORT"),
        ({"COMMEDIA_WEB__ENABLED": "false"}, "Nothing to serve"),
    ],
)
async def test_wrong_settings_end_it_with_a_message(tmp_path: Path, environment: dict[str, str], told: str) -> None:
    async with running_bot(tmp_path, **environment) as bot:
        assert await bot.ended() == 1
        assert told in bot.log
        assert "Traceback" not in bot.log


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "commedia.db"
    file.write_bytes(b"somebody's diary " * 100)
    async with running_bot(tmp_path) as bot:
        assert await bot.ended() == 1
        assert str(file.name) in bot.log
        assert "Traceback" not in bot.log
    assert file.read_bytes() == b"somebody's diary " * 100


async def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with running_bot(tmp_path, COMMEDIA_WEB__PORT=str(port)) as bot:
            assert await bot.ended() == 1
            assert "web.port" in bot.log
            assert "Traceback" not in bot.log


async def test_an_edited_persona_is_live_and_a_broken_one_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "personas"
    folder.mkdir()
    file = folder / "ann.yaml"
    file.write_text("name: Ann\nsummary: A test.\ngreetings: [Hello]\n")
    async with running_bot(tmp_path) as bot:
        await bot.wait_for_log("http://")
        file.write_text("name: Ann\nsumary: A test.\ngreetings: [Hello]\n")
        await bot.wait_for_log(r"ann\.yaml:2:1", timeout_s=5)
        assert await bot.stop() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_an_unwritable_home_is_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    async with running_bot(tmp_path, COMMEDIA_HOME=str(home)) as bot:
        assert await bot.ended() == 1
        assert "COMMEDIA_HOME" in bot.log
        assert "Traceback" not in bot.log
