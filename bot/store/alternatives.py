"""The versions of a reply: several texts, of which one counts and is the turn's.

Owns the rows of `alternatives`. Every step runs in its caller's transaction. Knows not where versions come from.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.queries import conversation_id, well_formed
from bot.store.tables import alternatives, ratings, turns
from bot.types import Alternatives, ConversationKey
from engine.types import Role

MAX_ALTERNATIVES = 50
NONE = Alternatives((), 0)


async def alternatives_of(connection: AsyncConnection, key: ConversationKey, turn_id: int) -> Alternatives:
    """The versions of that reply: its only text where it has no others; `NONE` where there is no such reply."""
    text = await _text_of(connection, key, turn_id)
    if text is None:
        return NONE
    rows = await _rows(connection, turn_id)
    return _as_alternatives(rows) if rows else Alternatives((text,), 0)


async def add(connection: AsyncConnection, key: ConversationKey, turn_id: int, text: str) -> Alternatives:
    """Keep another version of that reply, which counts from now on."""
    if await chosen_id(connection, key, turn_id) is None:
        return NONE
    await _unchoose(connection, turn_id)
    await connection.execute(insert(alternatives).values(turn_id=turn_id, text=well_formed(text), is_chosen=True))
    rows = await _rows(connection, turn_id)
    too_many = [row.id for row in rows[: max(0, len(rows) - MAX_ALTERNATIVES)]]
    await connection.execute(delete(alternatives).where(alternatives.c.id.in_(too_many)))
    return await _show_chosen(connection, turn_id)


async def choose(connection: AsyncConnection, key: ConversationKey, turn_id: int, index: int) -> Alternatives:
    """Let the version at `index` count; where there is none, the choice stays."""
    current = await alternatives_of(connection, key, turn_id)
    rows = await _rows(connection, turn_id) if current.texts else []
    if not 0 <= index < len(rows):
        return current
    await _unchoose(connection, turn_id)
    await connection.execute(update(alternatives).where(alternatives.c.id == rows[index].id).values(is_chosen=True))
    return await _show_chosen(connection, turn_id)


async def rewrite(connection: AsyncConnection, key: ConversationKey, turn_id: int, text: str) -> bool:
    """Replace a turn's text, and say whether there is such a turn. What was thought of the old words goes with them."""
    text = well_formed(text)
    of_turn = (turns.c.id == turn_id) & (turns.c.conversation_id == conversation_id(key))
    if not (await connection.execute(update(turns).where(of_turn).values(text=text))).rowcount:
        return False
    is_chosen = (alternatives.c.turn_id == turn_id) & alternatives.c.is_chosen
    rewritten = select(alternatives.c.id).where(is_chosen).where(alternatives.c.text != text)
    await connection.execute(delete(ratings).where(ratings.c.alternative_id.in_(rewritten)))
    await connection.execute(update(alternatives).where(is_chosen).values(text=text))
    return True


async def chosen_id(connection: AsyncConnection, key: ConversationKey, turn_id: int) -> int | None:
    """The id of the version that counts, made where the reply has one text; `None` where there is no such reply."""
    text = await _text_of(connection, key, turn_id)
    if text is None:
        return None
    query = select(alternatives.c.id).where(alternatives.c.turn_id == turn_id).where(alternatives.c.is_chosen)
    known: int | None = await connection.scalar(query)
    if known is not None:
        return known
    first = insert(alternatives).values(turn_id=turn_id, text=text, is_chosen=True).returning(alternatives.c.id)
    made: int = (await connection.execute(first)).scalar_one()
    return made


async def _text_of(connection: AsyncConnection, key: ConversationKey, turn_id: int) -> str | None:
    query = (
        select(turns.c.text)
        .where(turns.c.id == turn_id)
        .where(turns.c.conversation_id == conversation_id(key))
        .where(turns.c.role == Role.ASSISTANT.value)
    )
    return await connection.scalar(query)


async def _rows(connection: AsyncConnection, turn_id: int) -> Sequence[Row[Any]]:
    query = select(alternatives).where(alternatives.c.turn_id == turn_id).order_by(alternatives.c.id)
    return (await connection.execute(query)).all()


async def _unchoose(connection: AsyncConnection, turn_id: int) -> None:
    await connection.execute(update(alternatives).where(alternatives.c.turn_id == turn_id).values(is_chosen=False))


async def _show_chosen(connection: AsyncConnection, turn_id: int) -> Alternatives:
    """Give the turn the text of the version that counts."""
    found = _as_alternatives(await _rows(connection, turn_id))
    await connection.execute(update(turns).where(turns.c.id == turn_id).values(text=found.texts[found.chosen]))
    return found


def _as_alternatives(rows: Sequence[Row[Any]]) -> Alternatives:
    chosen = next(index for index, row in enumerate(rows) if row.is_chosen)
    return Alternatives(tuple(row.text for row in rows), chosen)
