"""The bots that are measured: Commedia, the least that one can write with the platforms' libraries, and less than that.

    python -m benchmarks.platforms.bots PLAN_AS_JSON

Owns how each is started, in this process or in one of its own, and stopped. `commedia` is all of it with the engine
that repeats what it hears; `library` is an echo on discord.py or python-telegram-bot, the floor; `wire` is an echo on
bare HTTP and WebSockets: what the fake itself takes.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp

from benchmarks.platforms.crowds import Address

KINDS = ("wire", "library", "commedia")
ROOT = Path(__file__).parent.parent.parent
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
MESSAGE_CONTENT_INTENTS = (1 << 9) | (1 << 12) | (1 << 15)
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Which bot, where, and how.

    `home` is Commedia's folder. `word_s` is the engine's pause before each word. Without `has_pace` it writes to
    Telegram as fast as it can, past what the real one would allow. Messages that wait are answered one by one unless it
    `merges` them: each is to have an answer of its own.
    """

    kind: str
    address: Address
    home: str
    word_s: float = 0.0
    has_pace: bool = True
    merges: bool = False


async def run_bot(plan: Plan) -> None:
    """Serve until cancelled, or until a signal comes."""
    await _RUNNERS[plan.kind, plan.address.platform](plan)


async def _run_commedia(plan: Plan) -> None:
    from bot import app
    from bot.settings import Settings
    from engine.backends.echo import EchoEngine

    at = plan.address
    urls = {"token": at.token, "api_url": at.api_url}
    settings = Settings.model_validate(
        {
            "home": plan.home,
            "personas": [str(ROOT / "personas")],
            "web": {"enabled": False},
            "chat": {"merge_waiting": plan.merges},
            at.platform: urls | ({"gateway_url": at.gateway_url} if at.platform == "discord" else {}),
        }
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(app, "build_engine", lambda _: EchoEngine(seconds_per_word=plan.word_s)))
        if at.platform == "telegram" and not plan.has_pace:
            stack.enter_context(_unpaced_telegram())
        await app.serve(settings)


@contextlib.contextmanager
def _unpaced_telegram() -> Iterator[None]:
    from bot.adapters import telegram

    timing = telegram.Timing(per_chat=None, per_group=None, overall=None)
    with patch.object(telegram, "TelegramAdapter", functools.partial(telegram.TelegramAdapter, timing=timing)):
        yield


async def _run_discord_py(plan: Plan) -> None:
    import discord
    import yarl
    from discord.gateway import DiscordWebSocket
    from discord.http import Route

    class Echo(discord.Client):
        async def on_message(self, message: discord.Message) -> None:
            if not message.author.bot:
                await message.channel.send(f"You said: {message.content}")

    with (
        patch.object(Route, "BASE", plan.address.api_url),
        patch.object(DiscordWebSocket, "DEFAULT_GATEWAY", yarl.URL(plan.address.gateway_url)),
    ):
        async with Echo(intents=discord.Intents(MESSAGE_CONTENT_INTENTS | 1), guild_ready_timeout=0.5) as client:
            await client.start(plan.address.token)


async def _run_python_telegram_bot(plan: Plan) -> None:
    from telegram import Update
    from telegram.ext import ApplicationBuilder, ContextTypes, MessageHandler, filters

    async def echo(update: Update, _: ContextTypes.DEFAULT_TYPE) -> None:
        if update.message is not None:
            await update.message.reply_text(f"You said: {update.message.text}")

    builder = ApplicationBuilder().token(plan.address.token).base_url(f"{plan.address.api_url}/bot")
    application = builder.concurrent_updates(True).build()
    application.add_handler(MessageHandler(filters.TEXT, echo))
    async with application:
        await application.start()
        assert application.updater is not None
        await application.updater.start_polling()
        try:
            await asyncio.Event().wait()
        finally:
            await application.updater.stop()
            await application.stop()


async def _run_discord_wire(plan: Plan) -> None:
    at = plan.address
    headers = {"Authorization": f"Bot {at.token}"}
    async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as replies:

        async def reply(channel_id: str, text: str) -> None:
            url = f"{at.api_url}/channels/{channel_id}/messages"
            async with session.post(url, json={"content": f"You said: {text}"}) as response:
                await response.read()

        async with session.ws_connect(f"{at.gateway_url}?v=10&encoding=json") as socket:
            identity = {"token": at.token, "intents": MESSAGE_CONTENT_INTENTS | 1, "properties": {}}
            await socket.send_json({"op": 2, "d": identity})
            async for frame in socket:
                event = json.loads(frame.data)
                data = event.get("d")
                if event.get("t") == "MESSAGE_CREATE" and not data["author"]["bot"]:
                    replies.create_task(reply(data["channel_id"], data["content"]))


async def _run_telegram_wire(plan: Plan) -> None:
    base = f"{plan.address.api_url}/bot{plan.address.token}"
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as replies:

        async def call(method: str, **parameters: object) -> list[dict[str, Any]]:
            async with session.post(f"{base}/{method}", json=parameters) as response:
                return (await response.json())["result"]

        offset = 0
        while True:
            for update in await call("getUpdates", offset=offset, timeout=10):
                offset = update["update_id"] + 1
                message = update["message"]
                replies.create_task(call("sendMessage", chat_id=message["chat"]["id"], text=message["text"]))


_RUNNERS: dict[tuple[str, str], Callable[[Plan], Coroutine[Any, Any, None]]] = {
    ("commedia", "discord"): _run_commedia,
    ("commedia", "telegram"): _run_commedia,
    ("library", "discord"): _run_discord_py,
    ("library", "telegram"): _run_python_telegram_bot,
    ("wire", "discord"): _run_discord_wire,
    ("wire", "telegram"): _run_telegram_wire,
}


class BotTask:
    """A bot in this process, for tests: it cannot be killed, only cancelled in whatever it does."""

    def __init__(self, plan: Plan) -> None:
        self._task = asyncio.create_task(run_bot(plan))

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    def rss_mb(self) -> float:
        return _rss_mb(os.getpid())

    def cpu_s(self) -> float:
        return _cpu_s(os.getpid())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_TIMEOUT_S)

    kill = stop


class BotProcess:
    """A bot in a process of its own, whose log is `bot.log` in its home."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, plan: Plan) -> "BotProcess":
        command = (sys.executable, "-m", "benchmarks.platforms.bots", json.dumps(asdict(plan)))
        with (Path(plan.home) / "bot.log").open("ab") as log:
            return cls(await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=log, stderr=log))

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def rss_mb(self) -> float:
        return _rss_mb(self._process.pid)

    def cpu_s(self) -> float:
        """What all its threads have computed."""
        return _cpu_s(self._process.pid)

    async def stop(self) -> None:
        """As an admin stops it; by force where that takes too long."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """As a power cut stops it."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> None:
        if not self.has_ended:
            self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


Bot = BotTask | BotProcess


async def start_bot(plan: Plan, *, is_apart: bool) -> Bot:
    """Start it; that it is connected is for its platform to see."""
    await asyncio.to_thread(Path(plan.home).mkdir, parents=True, exist_ok=True)
    return await BotProcess.start(plan) if is_apart else BotTask(plan)


@contextlib.asynccontextmanager
async def serving(
    plan: Plan, is_served: Callable[[], bool], *, is_apart: bool, timeout_s: float = 60.0
) -> AsyncIterator[Bot]:
    """A bot that is connected. Raises `RuntimeError` where it does not come to that."""
    bot = await start_bot(plan, is_apart=is_apart)
    try:
        await until(is_served, bot, timeout_s=timeout_s)
        yield bot
    finally:
        await bot.stop()


async def until(is_so: Callable[[], bool], bot: Bot, *, timeout_s: float) -> None:
    """Wait for something that the bot is to bring about."""
    try:
        async with asyncio.timeout(timeout_s):
            while not is_so() and not bot.has_ended:  # noqa: ASYNC110 - a process says nothing by itself
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise RuntimeError(f"a bot did not connect within {timeout_s:g} s") from None
    if not is_so():
        raise RuntimeError("a bot ended before it had connected; its log is bot.log in its home")


def _rss_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES / 1e6
    except (OSError, IndexError):
        return 0.0


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def main() -> None:
    """Run the bot that the first argument describes."""
    fields = json.loads(sys.argv[1])
    plan = Plan(**fields | {"address": Address(**fields["address"])})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(run_bot(plan))


if __name__ == "__main__":
    main()
