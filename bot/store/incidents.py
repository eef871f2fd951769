"""What went wrong with a platform, beside single replies, so that it can be looked at later and from elsewhere.

Owns how much of it is kept: a count and the last case of each kind. Knows not what a kind means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, case, delete, select
from sqlalchemy.dialects.sqlite import insert

from bot.store.database import Database
from bot.store.tables import incidents

MAX_AGE = timedelta(days=30)
MAX_KINDS = 1000
# After so long without any, counting begins anew.
QUIET_TIME = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Incident:
    """So many of one kind; `detail` is the last one's."""

    platform: str
    kind: str
    count: int
    last_at: datetime
    detail: str


class IncidentRecords:
    """The incidents of the last month, counted by platform and kind. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, happened: Sequence[Incident]) -> None:
        """Count what happened along with what is known, and forget what is old or too much."""
        await self._database.write(lambda connection: _add(connection, happened))

    async def since(self, moment: datetime) -> list[Incident]:
        """The kinds of which there was one since then, the last one first. A count may begin up to a day earlier."""
        query = select(incidents).where(incidents.c.last_at >= moment).order_by(incidents.c.last_at.desc())
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Incident(**row._mapping) for row in rows]


def _add(connection: Connection, happened: Sequence[Incident]) -> None:
    statement = insert(incidents)
    new = statement.excluded
    changes = {"last_at": new.last_at, "detail": new.detail}
    for incident in happened:
        is_current = incidents.c.last_at >= incident.last_at - QUIET_TIME
        count = case((is_current, incidents.c.count + new.count), else_=new.count)
        connection.execute(
            statement.values(
                platform=incident.platform,
                kind=incident.kind,
                count=incident.count,
                last_at=incident.last_at,
                detail=incident.detail,
            ).on_conflict_do_update(index_elements=["platform", "kind"], set_={**changes, "count": count})
        )
    connection.execute(delete(incidents).where(incidents.c.last_at < datetime.now(UTC) - MAX_AGE))
    newest_ones = select(incidents.c.last_at).order_by(incidents.c.last_at.desc()).offset(MAX_KINDS - 1).limit(1)
    connection.execute(delete(incidents).where(incidents.c.last_at < newest_ones.scalar_subquery()))
