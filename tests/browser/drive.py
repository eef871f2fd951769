"""Drives a real headless Chromium over its DevTools protocol, with nothing but a WebSocket.

    python -m tests.browser.drive http://127.0.0.1:8080/ page.png --width 360 --dark

takes a picture of a page that is served already. Tests import `Chromium` and `Page`.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowDown": (40, ""), "ArrowUp": (38, "")}
SHIFT = 8
DRAWN = "document.querySelector('.composer textarea') && document.querySelector('.messages .row')"


def find_chromium() -> str | None:
    """Where Chromium is, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._connection = connection
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for raw in self._connection:
            message = json.loads(raw)
            if "id" in message:
                answer = self._answers.pop(message["id"])
                if not answer.done():
                    answer.set_result(message)
            else:
                self._note(message["method"], message["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.messages.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        answer = await asyncio.wait_for(self._answers[number], 20)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    async def open(self, url: str) -> None:
        """Go to `url` and wait until the chat is drawn."""
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.wait_for(DRAWN)

    async def reload(self) -> None:
        """Load the page again and wait until the chat is drawn."""
        await self.run("window.isOld = true")
        await self.call("Page.reload")
        await self.wait_for(f"!window.isOld && {DRAWN}")

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def wait_for(self, condition: str, *, timeout_s: float = 15) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + timeout_s
        while not await self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                shown = await self.run("document.body.innerText")
                raise TimeoutError(f"{condition} did not come true; the page reads: {shown}; errors: {self.messages}")
            await asyncio.sleep(0.03)

    async def text(self, selector: str) -> str:
        """What can be read in the first element that matches."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)})?.innerText"))

    async def click(self, selector: str) -> None:
        """Click the middle of the first element that matches, as a mouse does."""
        place = await self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key."""
        code, text = KEYS[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": SHIFT if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def attach(self, *paths: Path) -> None:
        """Pick files as the attach button would."""
        root = await self.call("DOM.getDocument")
        found = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector="input[type=file]")
        await self.call("DOM.setFileInputFiles", nodeId=found["nodeId"], files=[str(path) for path in paths])

    async def resize(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """Give the page another size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )

    async def prefer(self, scheme: str) -> None:
        """Let the system prefer `dark` or `light`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self, path: Path) -> None:
        """A picture of what is visible."""
        result = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(result["data"]))

    def strangers(self) -> list[str]:
        """Every request that left this machine."""
        inside = {"127.0.0.1", "localhost", None, ""}
        return [url for url in self.requests if urlsplit(url).hostname not in inside]

    async def aclose(self) -> None:
        """Close the tab."""
        with contextlib.suppress(RuntimeError, TimeoutError):
            await self.call("Page.close")
        await self._connection.close()
        with contextlib.suppress(ConnectionClosed):
            await self._reading


class Chromium:
    """A browser with a fresh profile. `context=True` opens a tab that shares no cookies with the others."""

    def __init__(self, port: int, browser: ClientConnection) -> None:
        self._port = port
        self._browser = browser
        self._ids = count(1)

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        await self._browser.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(20):
            while True:
                message = json.loads(await self._browser.recv())
                if message.get("id") == number:
                    return dict(message["result"])

    async def new_page(self, *, context: bool = False) -> Page:
        """Open an empty tab."""
        params = (await self._call("Target.createBrowserContext")) if context else {}
        target = await self._call("Target.createTarget", url="about:blank", **params)
        url = f"ws://127.0.0.1:{self._port}/devtools/page/{target['targetId']}"
        return Page(await connect(url, max_size=None, proxy=None))


@contextlib.asynccontextmanager
async def chromium(executable: str) -> AsyncIterator[Chromium]:
    """Start Chromium, and end it with everything that it left."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            executable,
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port, path = await _devtools(Path(profile) / "DevToolsActivePort")
            async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as browser:
                yield Chromium(port, browser)
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _devtools(announcement: Path) -> tuple[int, str]:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError):
                port, path = announcement.read_text().splitlines()
                return int(port), path
            await asyncio.sleep(0.05)


async def _main(arguments: argparse.Namespace) -> None:
    executable = find_chromium()
    if executable is None:
        raise SystemExit("Chromium is not installed")
    async with chromium(executable) as browser:
        page = await browser.new_page()
        await page.resize(arguments.width, arguments.height, is_phone=arguments.width < 600)
        await page.prefer("dark" if arguments.dark else "light")
        await page.open(arguments.url)
        if arguments.image:
            await page.attach(*(image.resolve() for image in arguments.image))
        if arguments.say:
            await page.click(".composer textarea")
            await page.type(arguments.say)
            await page.wait_for("!document.querySelector('.round[type=submit]').disabled")
            await page.press("Enter")
            await page.wait_for("document.querySelector('.stop')")
            await page.wait_for("!document.querySelector('.stop')", timeout_s=arguments.timeout)
        await asyncio.sleep(0.5)
        await page.screenshot(arguments.picture)
        print(await page.text(".messages"))  # noqa: T201 - what was read is this command's answer
        await page.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take a picture of the page, after saying something if asked to.")
    parser.add_argument("url")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--say", help="a message to send first")
    parser.add_argument("--image", type=Path, action="append", help="a picture to send with it")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--timeout", type=float, default=120, help="seconds to wait for the reply")
    asyncio.run(_main(parser.parse_args()))
