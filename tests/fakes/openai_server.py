"""A server that speaks OpenAI's API on a socket of its own, and misbehaves where a test wants it to.

It takes what Ollama, llama.cpp's server, vLLM and a cloud have in common, and refuses in their words.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Fault:
    """An answer in place of a reply."""

    status: int
    body: object = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Vanish:
    """The connection breaks."""


@dataclass(frozen=True)
class End:
    """The stream ends in good order, but before the reply does."""


@dataclass(frozen=True)
class Raw:
    """Something that comes over the stream as it is."""

    text: str


Step = str | float | asyncio.Event | Vanish | End | Raw
"""A piece to say, seconds or an event to wait for, or what goes wrong then."""


def count(body: dict[str, Any]) -> Iterator[Step]:
    """Say what was said last, then count for ever."""
    yield f"You said {last_text(body)}:"
    number = 0
    while True:
        number += 1
        yield f" {number}"


def last_text(body: dict[str, Any]) -> str:
    """The words of the last message, or `embeddings` where there are none."""
    if "messages" not in body:
        return "embeddings" if body.get("prompt_embeds") else body["prompt"]
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content).strip()


class Starts(Enum):
    """What servers make of a reply that has begun. llama.cpp and Ollama go on with it, vLLM where it is told to,
    Mistral where it is marked as one; others say it again, or refuse."""

    GOES_ON = auto()
    WANTS_FLAGS = auto()
    WANTS_MARK = auto()
    REPEATS = auto()
    REFUSES = auto()


@dataclass
class FakeOpenAIServer:
    """`requests` holds every body that came to the chat or completions API, `paths` and `headers` what they came with.

    `starts` is what it makes of a reply that has begun. `known_fields=None` takes every field; `max_context_bytes`
    bounds the words of all messages; of pictures a request may have `max_pictures`.
    """

    models: Sequence[dict[str, Any]] = ({"id": "fake"},)
    api_key: str | None = None
    say: Callable[[dict[str, Any]], Iterator[Step] | Sequence[Step]] = count
    delay_s: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    list_fault: Fault | None = None
    known_fields: set[str] | None = None
    max_context_bytes: int | None = None
    max_pictures: int = 0
    is_strict: bool = False
    takes_embeddings: bool = False
    starts: Starts = Starts.GOES_ON
    has_usage: bool = True
    ends_with_done: bool = True
    heeds_limit: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_open: int = 0
    max_open: int = 0
    num_closed_early: int = 0
    url: str = ""
    _peers: set[object] = field(default_factory=set)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._reply)
        app.router.add_post("/v1/completions", self._reply)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def num_connections(self) -> int:
        """How many connections replies have come over."""
        return len(self._peers)

    async def stop(self) -> None:
        """Be gone."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _list(self, request: web.Request) -> web.Response:
        if (refusal := self._refuse_key(request)) is not None:
            return refusal
        if self.list_fault is not None:
            return _faulty(self.list_fault)
        return web.json_response({"object": "list", "data": list(self.models)})

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        self.requests.append(body)
        self.paths.append(request.path_qs)
        self.headers.append(dict(request.headers))
        self._peers.add(request.transport and request.transport.get_extra_info("peername"))
        refusal = self._refuse_key(request) or self._refuse(body)
        if refusal is not None:
            return refusal
        if self.faults:
            return _faulty(self.faults.pop(0))
        return await self._stream(request, body)

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        is_whole = False
        try:
            await response.prepare(request)
            await self._follow(request, response, body)
            is_whole = True
        except (ConnectionResetError, asyncio.CancelledError):
            self.num_closed_early += 1
            raise
        finally:
            self.num_open -= 1
            assert is_whole or self.num_closed_early
        return response

    async def _follow(self, request: web.Request, response: web.StreamResponse, body: dict[str, Any]) -> None:
        limit = body.get("max_completion_tokens", body.get("max_tokens")) if self.heeds_limit else None
        num_said, reason = 0, "stop"
        for step in self._steps(body):
            if isinstance(step, str):
                if num_said == limit:
                    reason = "length"
                    break
                num_said += 1
                await asyncio.sleep(self.delay_s)
                await self._send(response, _chunk(body, step))
            elif isinstance(step, Vanish):
                assert request.transport is not None
                request.transport.abort()
                return
            elif isinstance(step, End):
                await response.write_eof()
                return
            elif isinstance(step, Raw):
                await response.write(step.text.encode())
            elif isinstance(step, asyncio.Event):
                await step.wait()
            else:
                await asyncio.sleep(step)
        await self._send(response, _chunk(body, "", reason))
        if self.has_usage and body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 10, "completion_tokens": num_said, "prompt_tokens_details": {"cached_tokens": 4}}
            await self._send(response, {"choices": [], "usage": usage})
        if self.ends_with_done:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()

    def _steps(self, body: dict[str, Any]) -> Iterator[Step]:
        """What it says, of a reply that has begun only the rest, if it understands that."""
        *earlier, last = body.get("messages") or [{}]
        if last.get("role") != "assistant":
            yield from self.say(body)
            return
        begun = last["content"] if self._understands_start(body) else ""
        for step in self.say({**body, "messages": earlier}):
            if isinstance(step, str) and begun:
                begun, step = begun[len(step) :], step[len(begun) :]
                if not step:
                    continue
            yield step

    def _understands_start(self, body: dict[str, Any]) -> bool:
        flags = (body.get("continue_final_message"), body.get("add_generation_prompt"))
        return self.starts in (Starts.GOES_ON, Starts.WANTS_MARK) or (
            self.starts is Starts.WANTS_FLAGS and flags == (True, False)
        )

    async def _send(self, response: web.StreamResponse, content: dict[str, Any]) -> None:
        # As vLLM does: characters stay what they are, also those that some take for the end of a line.
        await response.write(f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode())

    def _refuse_key(self, request: web.Request) -> web.Response | None:
        if self.api_key is None or request.headers.get("Authorization") == f"Bearer {self.api_key}":
            return None
        return _error(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")

    def _refuse(self, body: dict[str, Any]) -> web.Response | None:
        if body["model"] not in {model["id"] for model in self.models}:
            return _error(404, f"The model `{body['model']}` does not exist.")
        if self.known_fields is not None:
            basics = {"model", "messages", "stream", "prompt", "prompt_embeds"}
            if unknown := sorted(body.keys() - basics - self.known_fields):
                return _error(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0])
        if "messages" in body:
            return self._refuse_messages(body["messages"])
        if body.get("prompt_embeds") and not self.takes_embeddings:
            return _error(400, "You must set `--enable-prompt-embeds` to input `prompt_embeds`.")
        return None

    def _refuse_messages(self, messages: list[dict[str, Any]]) -> web.Response | None:
        parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
        num_pictures = sum(part["type"] == "image_url" for part in parts)
        if num_pictures and not self.max_pictures:
            return _error(400, "fake is not a multimodal model")
        if num_pictures > self.max_pictures:
            return _error(400, f"At most {self.max_pictures} image(s) may be provided in one prompt.")
        size = sum(len(str(message["content"]).encode()) for message in messages)
        if self.max_context_bytes is not None and size > self.max_context_bytes:
            return _error(400, f"This model's maximum context length is {self.max_context_bytes} tokens.")
        if messages[-1]["role"] == "assistant":
            if self.starts is Starts.REFUSES:
                return _error(400, "Assistant message prefill is not supported. It must end with a user message.")
            if self.starts is Starts.WANTS_MARK and not messages[-1].get("prefix"):
                return _error(400, "Expected last role User or Tool (or Assistant with prefix True) for serving.")
            messages = messages[:-1]
        roles = [message["role"] for message in messages]
        if self.is_strict and roles != [("user", "assistant")[index % 2] for index in range(len(roles))]:
            return _error(400, "Conversation roles must alternate user/assistant/user/assistant/...")
        return None


def _faulty(fault: Fault) -> web.Response:
    if isinstance(fault.body, str | bytes):
        return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
    return web.json_response(fault.body, status=fault.status, headers=fault.headers)


def _chunk(body: dict[str, Any], text: str, reason: str | None = None) -> dict[str, Any]:
    said = {"delta": {"content": text}} if "messages" in body else {"text": text}
    return {"choices": [{"index": 0, **said, "finish_reason": reason}]}


def _error(status: int, message: str, *, param: str | None = None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return web.json_response({"error": error}, status=status)
