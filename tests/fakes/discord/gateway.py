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


def shard_of(guild_id: object, num_shards: int) -> int:
    """Which shard hears of a server; direct chats, and what belongs to no server, are the first one's."""
    return (int(str(guild_id)) >> 22) % num_shards if guild_id is not None and str(guild_id).isdigit() else 0


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
    shard_id: int = 0
    num_shards: int = 1
    intents: int = 0
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

    def __init__(self, token: str, *, bot_id: str, ready: Callable[[], list[tuple[str, dict[str, Any]]]]) -> None:
        """`ready` gives the events that a new session begins with; the first is READY, without its session's fields."""
        self._token = token
        self._bot_id = bot_id
        self._ready = ready
        self._sessions: list[Session] = []
        self._connections: set[Connection] = set()
        self._on_change: Callable[[], None] = lambda: None
        self.url = ""
        self.heartbeat_interval_s = 41.25
        self.grants_message_content = True
        self.num_refusals = 0
        self.num_recommended_shards = 1
        self.num_starts_left = 1000
        self.starts_reset_after_s = 3600.0
        self.guilds_after_s = 0.0
        """How long after READY a session is told of its servers."""
        self.identifies: list[dict[str, Any]] = []
        self.resumes: list[dict[str, Any]] = []
        self.num_heartbeats = 0

    def on_change(self, callback: Callable[[], None]) -> None:
        self._on_change = callback

    @property
    def is_connected(self) -> bool:
        """Whether a session is attached that has been sent READY or RESUMED."""
        return self.num_connected > 0

    @property
    def num_connected(self) -> int:
        """How many sessions are attached."""
        return sum(session.connection is not None for session in self._sessions)

    def about(self) -> dict[str, Any]:
        """What `GET /gateway/bot` tells."""
        limit = {
            "total": 1000,
            "remaining": self.num_starts_left,
            "reset_after": int(self.starts_reset_after_s * 1000),
            "max_concurrency": 1,
        }
        return {"url": self.url, "shards": self.num_recommended_shards, "session_start_limit": limit}

    def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Send any event, also a malformed one, to the sessions whose shard it belongs to."""
        guild_id = data.get("id") if event.startswith("GUILD_") and "guild_id" not in data else data.get("guild_id")
        for session in self._sessions:
            if session.shard_id == shard_of(guild_id, session.num_shards):
                session.dispatch(event, self._as_allowed(session, event, data))

    def _as_allowed(self, session: Session, event: str, data: dict[str, Any]) -> dict[str, Any]:
        """Without the intent, strangers' words in servers stay hidden unless they mention the bot."""
        is_message = event in ("MESSAGE_CREATE", "MESSAGE_UPDATE") and "author" in data
        if not is_message or session.intents & MESSAGE_CONTENT_INTENT or "guild_id" not in data:
            return data
        known = {data["author"]["id"], *(user["id"] for user in data["mentions"])}
        hidden = {"content": "", "attachments": [], "embeds": [], "components": []}
        return data if self._bot_id in known else data | hidden

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

    def forget_sessions(self) -> None:
        """Cut every connection, and let nobody resume: what is said until the next IDENTIFY is never sent."""
        self.drop()
        self._sessions.clear()

    def send_text(self, text: str, *, shard_id: int | None = None) -> None:
        """Send a frame that may be no JSON, to one shard or all."""
        for session in self._sessions:
            if session.connection is not None and shard_id in (None, session.shard_id):
                session.connection.put_text(text)

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
        shard_id, num_shards = data.get("shard") or (0, 1)
        if num_shards == 1 < self.num_recommended_shards:
            connection.put_close(4011)
            return
        self.num_starts_left -= 1
        session = Session(shard_id, num_shards, data["intents"], connection=connection)
        is_stale = [other.connection is None and other.shard_id == shard_id for other in self._sessions]
        self._sessions = [other for other, stale in zip(self._sessions, is_stale, strict=True) if not stale]
        self._sessions.append(session)
        (event, about), *rest = self._ready()
        own = [guild for guild in about["guilds"] if shard_of(guild["id"], num_shards) == shard_id]
        told = {"v": 10, "session_id": session.id, "resume_gateway_url": self.url, "shard": [shard_id, num_shards]}
        session.dispatch(event, about | {"guilds": own} | told)
        own_events = [(event, guild) for event, guild in rest if shard_of(guild["id"], num_shards) == shard_id]
        for event, guild in own_events:
            if self.guilds_after_s:
                asyncio.get_running_loop().call_later(self.guilds_after_s, session.dispatch, event, guild)
            else:
                session.dispatch(event, guild)

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
