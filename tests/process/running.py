"""Starts `commedia run` as a user would, as a process of its own, and watches it from outside."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class RunningBot:
    """A running process: what it has logged so far, and how it ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[str] = []
        self._grew = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @property
    def log(self) -> str:
        return "".join(self._lines)

    async def wait_for_log(self, pattern: str, *, timeout_s: float = START_TIMEOUT_S) -> re.Match[str]:
        """The first match of `pattern` in the log, now or later."""
        async with asyncio.timeout(timeout_s), self._grew:
            while not (match := re.search(pattern, self.log)):
                if self._reader.done():
                    raise AssertionError(f"the process ended before it logged {pattern!r}:\n{self.log}")
                await self._grew.wait()
        return match

    async def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and give the exit status."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end and give the exit status."""
        async with asyncio.timeout(STOP_TIMEOUT_S):
            status = await self._process.wait()
            await self._reader
        return status

    async def kill(self) -> None:
        """End it the way a power cut does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._grew:
                self._lines.append(line.decode(errors="replace"))
                self._grew.notify_all()
        async with self._grew:
            self._grew.notify_all()


@contextlib.asynccontextmanager
async def running_bot(home: Path, **environment: str) -> AsyncIterator[RunningBot]:
    """`commedia run` with that home folder, on the echo engine unless told otherwise, in an otherwise empty folder."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("COMMEDIA_", "DISCORD_", "TELEGRAM_"))
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot.cli",
        "run",
        cwd=home,
        env={
            **kept,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONUNBUFFERED": "1",
            "COMMEDIA_HOME": str(home),
            "COMMEDIA_ENGINE__BACKEND": "echo",
            # These tests count turns and messages; tests/bot/test_greeting.py has greetings.
            "COMMEDIA_CHAT__GREET": "false",
            "COMMEDIA_WEB__PORT": "0",
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    bot = RunningBot(process)
    try:
        yield bot
    finally:
        await bot.kill()
