"""What has arrived from the platforms, so that after a restart nothing is answered twice and nothing is missed.

Owns the events that were claimed, the newest message of each chat, and how long all that is kept. Knows not what an
event or a message says.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, bindparam, case, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from bot.adapters import base
from bot.errors import StoreError
from bot.store.database import Database
from bot.store.tables import messages, seen_events, seen_marks

logger = logging.getLogger(__name__)

MAX_CLAIMS = 200_000
MAX_AGE = timedelta(days=7)
MAX_MESSAGE_AGE = timedelta(days=30)
# So many chats are remembered between two flushes, also where the database cannot be written for a while.
MAX_NOTED_CHATS = 100_000
PRUNE_INTERVAL_S = 3600.0

_CLAIM = insert(seen_events).on_conflict_do_nothing().returning(seen_events.c.id)
_FORGET_CLAIMS = delete(seen_events).where(seen_events.c.id <= bindparam("last_id"))


class SeenEvents(base.SeenEvents):
    """Events and messages that have arrived. Raises `StoreError`, `note` and `run` never do.

    Message ids are decimal numbers that grow, as on Discord and Telegram.
    """

    def __init__(self, database: Database, *, max_claims: int = MAX_CLAIMS, flush_interval_s: float = 2.0) -> None:
        self._database = database
        self._max_claims = max_claims
        self._flush_interval_s = flush_interval_s
        self._noted: dict[tuple[str, str], tuple[str, datetime]] = {}

    async def claim(self, platform: str, event: str) -> bool:
        """Whether `event` comes for the first time; from now on it does not. The oldest of too many are forgotten."""
        return await self._database.write(lambda connection: self._claim(connection, platform, event))

    def note(self, platform: str, chat_id: str, message_id: str) -> None:
        """`message_id` was seen in that chat. Kept by the next flush, and only if it is the newest one."""
        known = self._noted.pop((platform, chat_id), None)
        newest = message_id if known is None else newer_id(known[0], message_id)
        self._noted[platform, chat_id] = (newest, datetime.now(UTC))
        if len(self._noted) > MAX_NOTED_CHATS:
            del self._noted[next(iter(self._noted))]

    async def marks(self, platform: str, *, since: datetime) -> Mapping[str, str]:
        """By chat, the newest message that was seen there, for all chats with one since then."""
        await self.flush()
        query = (
            select(seen_marks.c.chat_id, seen_marks.c.message_id)
            .where(seen_marks.c.platform == platform)
            .where(seen_marks.c.seen_at >= since)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return {row.chat_id: row.message_id for row in rows}

    async def run(self) -> None:
        """Flush every few seconds and in the end, and forget what is too old every hour, until cancelled."""
        clock = asyncio.get_running_loop().time
        prune_at = clock()
        try:
            while True:
                if clock() >= prune_at:
                    prune_at = clock() + PRUNE_INTERVAL_S
                    await self._prune_if_possible()
                await self._flush_if_possible()
                await asyncio.sleep(self._flush_interval_s)
        finally:
            await self._flush_if_possible()

    async def flush(self) -> None:
        """Keep what was noted, all of it in one transaction."""
        if not self._noted:
            return
        taken, self._noted = self._noted, {}
        try:
            await self._database.write(lambda connection: _keep_marks(connection, taken))
        except StoreError:
            # For the next time; what was noted meanwhile is newer.
            self._noted = taken | self._noted
            raise

    async def prune(self) -> None:
        """Forget events and chats that nobody heard of for a week."""
        oldest = datetime.now(UTC) - MAX_AGE

        def work(connection: Connection) -> None:
            connection.execute(delete(seen_events).where(seen_events.c.seen_at < oldest))
            connection.execute(delete(seen_marks).where(seen_marks.c.seen_at < oldest))

        await self._database.write(work)

    async def prune_messages(self, older_than: datetime) -> int:
        """Forget the messages before that time whose turns are forgotten, and say how many there were."""
        query = delete(messages).where(messages.c.turn_id.is_(None)).where(messages.c.seen_at < older_than)
        return await self._database.write(lambda connection: connection.execute(query).rowcount)

    def _claim(self, connection: Connection, platform: str, event: str) -> bool:
        values = {"platform": platform, "event": event, "seen_at": datetime.now(UTC)}
        new_id = connection.execute(_CLAIM, values).scalar()
        if new_id is None:
            return False
        connection.execute(_FORGET_CLAIMS, {"last_id": new_id - self._max_claims})
        return True

    async def _flush_if_possible(self) -> None:
        try:
            await self.flush()
        except StoreError as error:
            logger.error("what has arrived could not be noted, and is with the next messages: %s", error)

    async def _prune_if_possible(self) -> None:
        try:
            await self.prune()
            await self.prune_messages(datetime.now(UTC) - MAX_MESSAGE_AGE)
        except StoreError as error:
            logger.error("what arrived long ago could not be forgotten, and is in an hour: %s", error)


def newer_id(first: str, second: str) -> str:
    """The greater of two ids: the longer number, or of two equally long ones the one that sorts last."""
    return max(first, second, key=lambda message_id: (len(message_id), message_id))


def _keep_marks(connection: Connection, noted: Mapping[tuple[str, str], tuple[str, datetime]]) -> None:
    statement = insert(seen_marks)
    kept, new = seen_marks.c.message_id, statement.excluded.message_id
    is_older = (func.length(new) < func.length(kept)) | ((func.length(new) == func.length(kept)) & (new < kept))
    changes = {"message_id": case((is_older, kept), else_=new), "seen_at": statement.excluded.seen_at}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["platform", "chat_id"], set_=changes),
        [
            {"platform": platform, "chat_id": chat_id, "message_id": message_id, "seen_at": seen_at}
            for (platform, chat_id), (message_id, seen_at) in noted.items()
        ],
    )
