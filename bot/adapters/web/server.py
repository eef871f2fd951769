"""The web adapter: one server in the bot's own event loop, which serves the page, pictures and what the page sends.

Knows HTTP. What a browser's conversation is, `session` knows; how it looks, `page` knows.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import socket
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from nicegui import ui
from starlette.middleware.sessions import SessionMiddleware

from bot.adapters.base import Adapter, AdapterState, AdapterStatus, ConversationBrowser, MessageHandler
from bot.adapters.web.channel import MAX_FILE_BYTES
from bot.adapters.web.guard import Guard
from bot.adapters.web.page import FAVICON, add_page
from bot.adapters.web.pictures import drawn_face, picture_type
from bot.adapters.web.session import MAX_FILES, Session, Sessions, Upload
from bot.commands import CommandTable
from bot.errors import BotError, MediaError, PlatformFatal

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
COOKIE = "commedia_session"
COOKIE_AGE_S = 365 * 24 * 3600
MAX_NAME_LENGTH = 120
MAX_PORT = 65_535
CLOSING_TIMEOUT_S = 5.0
RECONNECT_TIMEOUT_S = 10.0
MAX_MESSAGE_BYTES = 2**20
ENDED_BY_ITSELF = "the local page's server ended by itself: start again, and if it happens again the log says why"
PRIVATE = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "sandbox; default-src 'none'"}
DRAWN = {
    "Cache-Control": "private, max-age=60",
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
}
UNCACHED = {"Cache-Control": "no-store"}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Monitor(Protocol):
    """What a monitoring system is told: `bot.metrics.Metrics`."""

    def exposition(self) -> bytes:
        """Everything that is counted, in Prometheus' text format."""

    def health(self) -> Mapping[str, object]:
        """How the bot is doing, as JSON."""


class _Server(uvicorn.Server):
    """A server that leaves the signals to whoever runs the event loop, and says when it serves."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebAdapter(Adapter):
    """The local page as an adapter. One a process: the page library keeps its routes for the whole process.

    `max_files` is how many pictures go into one message: as many as the bot looks at. `monitor` answers `/metrics` and
    `/health`.
    """

    name = "web"

    def __init__(
        self,
        *,
        host: str,
        port: int,
        handler: MessageHandler,
        browser: ConversationBrowser,
        commands: CommandTable,
        storage_secret: str,
        max_files: int = MAX_FILES,
        monitor: Monitor | None = None,
    ) -> None:
        self._host = host.strip("[]")
        self._port = port
        self._browser = browser
        self._monitor = monitor
        self._sessions = Sessions(handler, browser=browser, commands=commands, max_files=max_files)
        self._status = AdapterStatus(AdapterState.STARTING)
        self._url: str | None = None
        self.app = self._build_app(storage_secret)

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""
        return self._status

    @property
    def url(self) -> str | None:
        """Where the page is, once it is served."""
        return self._url

    async def run(self) -> None:
        """Serve until cancelled. Raises `PlatformFatal` where the address cannot be had."""
        try:
            listener = await self._listen()
        except PlatformFatal as error:
            self._status = AdapterStatus(AdapterState.FAILED, str(error))
            raise
        with contextlib.closing(listener):
            await self._serve(listener)

    async def _serve(self, listener: socket.socket) -> None:
        async with self._page_library():
            server = _Server(_server_config(self.app), on_started=lambda: self._say_running(listener))
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="web server")
            end = AdapterStatus(AdapterState.STOPPED)
            try:
                await asyncio.wait({serving})
                end = AdapterStatus(AdapterState.FAILED, ENDED_BY_ITSELF)
                if not serving.cancelled() and (cause := serving.exception()):
                    logger.error("the local page's server failed", exc_info=cause)
                raise PlatformFatal(ENDED_BY_ITSELF)
            finally:
                await self._sessions.aclose()
                server.should_exit = True
                await asyncio.wait([serving], timeout=CLOSING_TIMEOUT_S)
                self._url = None
                self._status = end

    @contextlib.asynccontextmanager
    async def _page_library(self) -> AsyncIterator[None]:
        # Not left to the server, which would log a traceback when it is interrupted.
        lifespan = self.app.router.lifespan_context(self.app)
        with warnings.catch_warnings():
            # To find its server, NiceGUI looks at every object in memory; deprecated ones of torch complain of that.
            warnings.simplefilter("ignore", FutureWarning)
            await lifespan.__aenter__()
        try:
            yield
        finally:
            await lifespan.__aexit__(None, None, None)

    def _say_running(self, listener: socket.socket) -> None:
        self._url = self._url_of(listener)
        self._status = AdapterStatus(AdapterState.RUNNING, self._url)

    async def _listen(self) -> socket.socket:
        try:
            if not 0 <= self._port <= MAX_PORT:
                raise OSError(f"a port is a number from 0 to {MAX_PORT}")
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            family, _, _, _, address = found[0]
            listener = socket.create_server(address[:2], family=family)
        except OSError as error:
            raise PlatformFatal(
                f"the local page cannot be served at {self._host}:{self._port} ({error}): "
                "set web.port to a free port, or to 0 for any, and web.host to an address of this machine"
            ) from None
        listener.setblocking(False)
        return listener

    def _url_of(self, listener: socket.socket) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - compared, not bound
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{listener.getsockname()[1]}"

    # What is served

    def _build_app(self, storage_secret: str) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.add_middleware(
            SessionMiddleware,
            secret_key=storage_secret,
            session_cookie=_cookie_name(storage_secret),
            max_age=COOKIE_AGE_S,
            same_site="lax",
        )
        app.add_middleware(Guard, host=self._host)
        app.mount("/static", StaticFiles(directory=STATIC))
        app.add_api_route("/avatar/{persona_id}", self._avatar)
        app.add_api_route("/picture/{digest}", self._picture)
        app.add_api_route("/sent/{upload_id}", self._sent)
        app.add_api_route("/drawn/{picture_id}", self._drawn)
        app.add_api_route("/upload", self._upload, methods=["POST"])
        app.add_api_route("/upload/{upload_id}", self._remove_upload, methods=["DELETE"])
        app.add_api_route("/say", self._say, methods=["POST"])
        app.add_api_route("/metrics", self._metrics)
        app.add_api_route("/health", self._health)
        add_page(self._sessions, self._browser)
        ui.run_with(
            app,
            title="Commedia",
            favicon=FAVICON,
            dark=None,
            language="en-US",
            tailwind=False,
            # Text is escaped or rendered on the server: no need to poll bindings.
            binding_refresh_interval=None,
            gzip_middleware_factory=None,
            show_welcome_message=False,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
        )
        return app

    async def _avatar(self, persona_id: str) -> Response:
        card = next((card for card in self._browser.personas() if card.id == persona_id), None)
        if card is None:
            raise HTTPException(404, "there is no such persona")
        if card.avatar:
            data = await asyncio.to_thread(_read_or_nothing, card.avatar)
            if mime := picture_type(data):
                return Response(data, media_type=mime, headers=DRAWN)
        return Response(drawn_face(card), media_type="image/svg+xml", headers=DRAWN)

    async def _picture(self, request: Request, digest: str) -> Response:
        try:
            data = await self._browser.picture(self._session(request).room, digest)
        except BotError:
            raise HTTPException(404, "there is no such picture here") from None
        return Response(data, media_type=picture_type(data) or "application/octet-stream", headers=PRIVATE)

    async def _sent(self, request: Request, upload_id: str) -> Response:
        upload = self._session(request).upload(upload_id)
        mime = picture_type(upload.data) if upload else None
        if upload is None or mime is None:
            raise HTTPException(404, "there is no such picture here")
        return Response(upload.data, media_type=mime, headers=PRIVATE)

    async def _drawn(self, request: Request, picture_id: str) -> Response:
        picture = self._session(request).drawn(picture_id)
        mime = picture_type(picture.data) if picture else None
        if picture is None or mime is None:
            raise HTTPException(404, "there is no such picture here")
        return Response(picture.data, media_type=mime, headers=PRIVATE)

    async def _upload(self, request: Request, name: str = "") -> Response:
        session = self._session(request)
        upload_name = name.strip()[:MAX_NAME_LENGTH] or "The file"
        try:
            data = await _body_of(request, max_bytes=MAX_FILE_BYTES, what=upload_name)
            upload_id = session.add_upload(Upload(upload_name, request.headers.get("content-type"), data))
        except MediaError as error:
            return JSONResponse({"error": str(error)}, status_code=413)
        return JSONResponse({"id": upload_id})

    async def _remove_upload(self, request: Request, upload_id: str) -> Response:
        self._session(request).remove_upload(upload_id)
        return Response(status_code=204)

    async def _say(self, request: Request) -> Response:
        session = self._session(request)
        try:
            body = await _body_of(request, max_bytes=MAX_MESSAGE_BYTES, what="this message")
            text, upload_ids = _message_in(json.loads(body))
            message_id = await session.say(text, upload_ids)
        except BotError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except (ValueError, RecursionError):
            return JSONResponse({"error": "this is no message"}, status_code=400)
        return JSONResponse({"id": message_id})

    async def _metrics(self) -> Response:
        if self._monitor is None:
            raise HTTPException(404, "nothing is counted here")
        return Response(self._monitor.exposition(), headers={"Content-Type": METRICS_TYPE, **UNCACHED})

    async def _health(self) -> Response:
        if self._monitor is None:
            raise HTTPException(404, "nobody looks after the bot's health here")
        return JSONResponse(self._monitor.health(), headers=UNCACHED)

    def _session(self, request: Request) -> Session:
        session_id = request.session.get("id")
        if not session_id:
            raise HTTPException(403, "open the page first")
        return self._sessions.of(session_id)


def _cookie_name(storage_secret: str) -> str:
    """Browsers tell no port from another: two bots on one machine would take each other's cookie away."""
    return f"{COOKIE}_{hashlib.sha256(storage_secret.encode()).hexdigest()[:8]}"


def _server_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


async def _body_of(request: Request, *, max_bytes: int, what: str) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise MediaError(f"{what} is too large: at most {max_bytes // 2**20} MB, please")
    return bytes(data)


def _message_in(body: object) -> tuple[str, tuple[str, ...]]:
    if not isinstance(body, dict):
        raise ValueError("not an object")
    text, upload_ids = body.get("text", ""), body.get("uploads", [])
    if not isinstance(text, str) or not isinstance(upload_ids, list):
        raise ValueError("not a message")
    if not all(isinstance(upload_id, str) for upload_id in upload_ids):
        raise ValueError("not a list of ids")
    # A browser sends half an emoji as it is, where a text was cut inside one; nobody else could read or keep it.
    return text.encode(errors="replace").decode(), tuple(dict.fromkeys(upload_ids))


def _read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
