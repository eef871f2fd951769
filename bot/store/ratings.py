"""What people think of replies, and whether they let it be kept.

Owns consents and ratings: without consent nothing is kept of anybody. Knows not what ratings are used for.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, Select, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from bot.store.alternatives import chosen_id
from bot.store.database import Database
from bot.store.queries import conversation_id
from bot.store.tables import alternatives, rating_consents, ratings, turns
from bot.types import Author, ConversationKey, Rating


class Ratings:
    """Who rated which version of a reply, and who agreed to that. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def consent(self, author: Author) -> bool | None:
        """Whether `author` lets ratings be kept; `None` where nobody has asked yet."""
        return await self._database.read(lambda connection: connection.scalar(_consent_of(author)))

    async def give_consent(self, author: Author, is_given: bool) -> None:
        """Note what `author` decided. Taking consent back deletes all ratings of theirs."""
        await self._database.write(lambda connection: _give_consent(connection, author, is_given))

    async def rate(self, key: ConversationKey, turn_id: int, author: Author, rating: Rating | None) -> bool:
        """Keep what `author` thinks of the reply as it reads now; `None` takes it back.

        Says whether that was done: nothing is kept without consent, nor of a turn that is no reply of the conversation.
        """
        return await self._database.write(lambda connection: _rate(connection, key, turn_id, author, rating))

    async def of(self, key: ConversationKey, turn_id: int) -> Mapping[int, Mapping[Rating, int]]:
        """How many rated a reply how, by the index of its alternatives; those that nobody rated are left out."""
        return await self._database.read(lambda connection: _ratings_of(connection, key, turn_id))


def _consent_of(author: Author) -> Select[bool]:
    return (
        select(rating_consents.c.is_given)
        .where(rating_consents.c.platform == author.platform)
        .where(rating_consents.c.user_id == author.user_id)
    )


def _give_consent(connection: Connection, author: Author, is_given: bool) -> None:
    values = {
        "platform": author.platform,
        "user_id": author.user_id,
        "is_given": is_given,
        "changed_at": datetime.now(UTC),
    }
    statement = insert(rating_consents).values(values)
    new = {"is_given": statement.excluded.is_given, "changed_at": statement.excluded.changed_at}
    connection.execute(statement.on_conflict_do_update(index_elements=["platform", "user_id"], set_=new))
    if not is_given:
        of_author = (ratings.c.platform == author.platform) & (ratings.c.user_id == author.user_id)
        connection.execute(delete(ratings).where(of_author))


def _rate(connection: Connection, key: ConversationKey, turn_id: int, author: Author, rating: Rating | None) -> bool:
    if not connection.scalar(_consent_of(author)):
        return False
    alternative_id = chosen_id(connection, key, turn_id)
    if alternative_id is None:
        return False
    rated_by = {"alternative_id": alternative_id, "platform": author.platform, "user_id": author.user_id}
    if rating is None:
        connection.execute(delete(ratings).filter_by(**rated_by))
        return True
    statement = insert(ratings).values(**rated_by, rating=rating.value, rated_at=datetime.now(UTC))
    new = {"rating": statement.excluded.rating, "rated_at": statement.excluded.rated_at}
    connection.execute(statement.on_conflict_do_update(index_elements=list(rated_by), set_=new))
    return True


def _ratings_of(connection: Connection, key: ConversationKey, turn_id: int) -> dict[int, dict[Rating, int]]:
    query = (
        select(alternatives.c.id, ratings.c.rating, func.count(ratings.c.rating).label("num"))
        .select_from(alternatives.join(turns).outerjoin(ratings))
        .where(turns.c.conversation_id == conversation_id(key))
        .where(turns.c.id == turn_id)
        .group_by(alternatives.c.id, ratings.c.rating)
        .order_by(alternatives.c.id)
    )
    rows = connection.execute(query).all()
    indices = {found: index for index, found in enumerate(dict.fromkeys(row.id for row in rows))}
    found: dict[int, dict[Rating, int]] = {}
    for row in rows:
        if row.rating is not None:
            found.setdefault(indices[row.id], {})[Rating(row.rating)] = row.num
    return found
