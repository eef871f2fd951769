"""Asks a server of its own on this machine for several streamed replies at once. Knows only the standard library."""

import atexit
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from benchmarks.peers.protocol import Timing, end_with_parent

START_TIMEOUT_S = 580
REPLY_TIMEOUT_S = 300
MAX_CHATS = 16

Event = Mapping[str, Any]
NewCounter = Callable[[], Callable[[Event], int]]
"""Makes, for one reply, what tells how many of its tokens have come with an event and all before it."""


class Server:
    """A server process that ends with this one. Its words go to stderr."""

    def __init__(self, command: Sequence[str], *, port: int, environment: Mapping[str, str]) -> None:
        self._port = port
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env=dict(environment),
            text=True,
            preexec_fn=end_with_parent,
        )
        atexit.register(self.close)
        self._threads = ThreadPoolExecutor(max_workers=MAX_CHATS)
        self._wait_until_healthy()

    def ask(self, path: str, bodies: Sequence[Event], counter: NewCounter) -> list[Timing]:
        """Post all `bodies` at once, and read their streams to the end."""
        since = time.perf_counter()
        return list(self._threads.map(lambda body: self._read(path, body, counter, since), bodies))

    def close(self) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()

    def _read(self, path: str, body: Event, counter: NewCounter, since: float) -> Timing:
        timing, count = Timing(), counter()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REPLY_TIMEOUT_S)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"the server answered {response.status}: {response.read()[:300]!r}")
        for event in _events(response):
            if (num_tokens := count(event)) > timing.num_new:
                timing.count(since, num_tokens - timing.num_new)
        connection.close()
        return timing

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == http.client.OK:
                    return
            time.sleep(0.2)
        self.close()
        raise RuntimeError("the server did not start")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _events(response: http.client.HTTPResponse) -> Iterator[Event]:
    for line in response:
        text = line.decode("utf-8").strip()
        if text.startswith("data: ") and text != "data: [DONE]":
            event: Event = json.loads(text.removeprefix("data: "))
            if "error" in event:
                raise RuntimeError(f"the server failed in the middle of a reply: {event['error']}")
            yield event
