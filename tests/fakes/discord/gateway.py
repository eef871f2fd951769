"""The gateway: HELLO, IDENTIFY, READY, events in one zlib stream a connection, heartbeats, RESUME with replay.

A session outlives its connection. Events that are dispatched while a session has none wait for its RESUME.
"""

import asyncio
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.discord.world import snowflake

MESSAGE_CONTENT_INTENT = 1 << 15
DISPATCH, HEARTBEAT, IDENTIFY, RESUME, RECONNECT, INVALID_SESSION, HELLO, HEARTBEAT_ACK = 0, 1, 2, 6, 7, 9, 10, 11


class Connection:
    """One WebSocket. Frames leave in the order in which they were put."""

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, *, is_compressed: bool
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._stream = zlib.compressobj() if is_compressed else None
        self._outgoing: asyncio.Queue[Callable[[], Any]] = asyncio.Queue()

    def put(self, frame: dict[str, Any]) -> None:
        self.put_text(json.dumps(frame))

    def put_text(self, text: str) -> None:
        """Any text as a frame, well-formed or not."""
        self._outgoing.put_nowait(lambda: self._send(text))

    def put_bytes(self, data: bytes) -> None:
        """Any bytes as a frame, past the compression."""
        self._outgoing.put_nowait(lambda: self._socket.send_bytes(data))

    def put_close(self, code: int) -> None:
        self._outgoing.put_nowait(lambda: self._socket.close(code=code))

    def drop(self) -> None:
        """Cut the TCP connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        while True:
            send = await self._outgoing.get()
            try:
                await send()
            except ConnectionError:
                return

    async def _send(self, text: str) -> None:
        if self._stream is None:
            await self._socket.send_str(text)
        else:
            await self._socket.send_bytes(self._stream.compress(text.encode()) + self._stream.flush(zlib.Z_SYNC_FLUSH))


@dataclass(eq=False)
class Session:
    id: str = field(default_factory=snowflake)
    sequence: int = 0
    sent: list[dict[str, Any]] = field(default_factory=list)
    connection: Connection | None = None

    def dispatch(self, event: str, data: dict[str, Any]) -> None:
        self.sequence += 1
        frame = {"op": DISPATCH, "t": event, "s": self.sequence, "d": data}
        self.sent.append(frame)
        if self.connection is not None:
            self.connection.put(frame)


class Gateway:
    """All connections and sessions, and what can go wrong with them."""

    def __init__(self, token: str, *, ready: Callable[[], list[tuple[str, dict[str, Any]]]]) -> None:
        """`ready` gives the events that a new session begins with; the first is READY, without its session's fields."""
        self._token = token
        self._ready = ready
        self._sessions: list[Session] = []
        self._connections: set[Connection] = set()
        self._on_change: Callable[[], None] = lambda: None
        self.url = ""
        self.heartbeat_interval_s = 41.25
        self.grants_message_content = True
        self.num_refusals = 0
        self.identifies: list[dict[str, Any]] = []
        self.resumes: list[dict[str, Any]] = []
        self.num_heartbeats = 0

    def on_change(self, callback: Callable[[], None]) -> None:
        self._on_change = callback

    @property
    def is_connected(self) -> bool:
        """Whether a session is attached that has been sent READY or RESUMED."""
        return any(session.connection is not None for session in self._sessions)

    def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Send any event, also a malformed one, to every session."""
        for session in self._sessions:
            session.dispatch(event, data)

    def refuse_next(self, times: int = 1) -> None:
        """Answer the next connections with 503, as an overloaded proxy does."""
        self.num_refusals += times

    def ask_to_reconnect(self) -> None:
        """Op 7: the client is to come back and resume."""
        self._put_to_all({"op": RECONNECT, "d": None})
        self._detach_all()

    def invalidate_session(self, *, can_resume: bool = False) -> None:
        """Op 9: the client is to resume, or else to identify anew."""
        self._put_to_all({"op": INVALID_SESSION, "d": can_resume})
        self._detach_all()
        if not can_resume:
            self._sessions.clear()

    def close(self, code: int) -> None:
        """Close every connection with `code`."""
        for connection in self._connections:
            connection.put_close(code)
        self._detach_all()

    def drop(self) -> None:
        """Cut every connection without a word."""
        for connection in self._connections:
            connection.drop()
        self._detach_all()

    def send_text(self, text: str) -> None:
        """Send a frame that may be no JSON."""
        for connection in self._connections:
            connection.put_text(text)

    def send_bytes(self, data: bytes) -> None:
        """Send a frame that may be no zlib stream."""
        for connection in self._connections:
            connection.put_bytes(data)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One connection, from its opening to its end."""
        if self.num_refusals > 0:
            self.num_refusals -= 1
            return web.Response(status=503)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        is_compressed = request.query.get("compress") == "zlib-stream"
        connection = Connection(socket, request.transport, is_compressed=is_compressed)
        self._connections.add(connection)
        writer = asyncio.create_task(connection.write())
        try:
            await self._converse(socket, connection)
        finally:
            writer.cancel()
            self._connections.discard(connection)
            self._detach(connection, is_farewell=socket.close_code in (1000, 1001))
            self._on_change()
        return socket

    async def _converse(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        interval_ms = int(self.heartbeat_interval_s * 1000)
        connection.put({"op": HELLO, "d": {"heartbeat_interval": interval_ms}})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            frame = json.loads(message.data)
            if frame["op"] == HEARTBEAT:
                self.num_heartbeats += 1
                connection.put({"op": HEARTBEAT_ACK})
            elif frame["op"] == IDENTIFY:
                self._identify(connection, frame["d"])
            elif frame["op"] == RESUME:
                self._resume(connection, frame["d"])
            self._on_change()

    def _identify(self, connection: Connection, data: dict[str, Any]) -> None:
        self.identifies.append(data)
        if data["token"] != self._token:
            connection.put_close(4004)
            return
        if data["intents"] & MESSAGE_CONTENT_INTENT and not self.grants_message_content:
            connection.put_close(4014)
            return
        session = Session(connection=connection)
        self._sessions = [other for other in self._sessions if other.connection is not None]
        self._sessions.append(session)
        (event, data), *rest = self._ready()
        session.dispatch(event, data | {"v": 10, "session_id": session.id, "resume_gateway_url": self.url})
        for event, data in rest:
            session.dispatch(event, data)

    def _resume(self, connection: Connection, data: dict[str, Any]) -> None:
        self.resumes.append(data)
        session = next((session for session in self._sessions if session.id == data["session_id"]), None)
        if session is None or data["token"] != self._token:
            connection.put({"op": INVALID_SESSION, "d": False})
            return
        for frame in session.sent:
            if frame["s"] > data["seq"]:
                connection.put(frame)
        session.connection = connection
        session.dispatch("RESUMED", {})

    def _put_to_all(self, frame: dict[str, Any]) -> None:
        for connection in self._connections:
            connection.put(frame)

    def _detach_all(self) -> None:
        for session in self._sessions:
            session.connection = None

    def _detach(self, connection: Connection, *, is_farewell: bool) -> None:
        """A client that closes with 1000 or 1001 ends its session; any other end leaves it to be resumed."""
        for session in [session for session in self._sessions if session.connection is connection]:
            session.connection = None
            if is_farewell:
                self._sessions.remove(session)
