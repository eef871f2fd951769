"""The versions of a reply: several texts, of which one counts and is the turn's.

Owns the rows of `alternatives`. Every step runs in its caller's transaction. Knows not where versions come from.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from bot.store.queries import conversation_id, well_formed
from bot.store.tables import alternatives, ratings, turns
from bot.types import Alternatives, ConversationKey
from engine.types import Role

MAX_ALTERNATIVES = 50
NONE = Alternatives((), 0)


def alternatives_of(connection: Connection, key: ConversationKey, turn_id: int) -> Alternatives:
    """The versions of that reply: its only text where it has no others; `NONE` where there is no such reply."""
    text = _text_of(connection, key, turn_id)
    if text is None:
        return NONE
    rows = _rows(connection, turn_id)
    return _as_alternatives(rows) if rows else Alternatives((text,), 0)


def add(connection: Connection, key: ConversationKey, turn_id: int, text: str) -> Alternatives:
    """Keep another version of that reply, which counts from now on."""
    if chosen_id(connection, key, turn_id) is None:
        return NONE
    _unchoose(connection, turn_id)
    connection.execute(insert(alternatives).values(turn_id=turn_id, text=well_formed(text), is_chosen=True))
    rows = _rows(connection, turn_id)
    too_many = [row.id for row in rows[: max(0, len(rows) - MAX_ALTERNATIVES)]]
    connection.execute(delete(alternatives).where(alternatives.c.id.in_(too_many)))
    return _show_chosen(connection, turn_id)


def choose(connection: Connection, key: ConversationKey, turn_id: int, index: int) -> Alternatives:
    """Let the version at `index` count; where there is none, the choice stays."""
    current = alternatives_of(connection, key, turn_id)
    rows = _rows(connection, turn_id) if current.texts else []
    if not 0 <= index < len(rows):
        return current
    _unchoose(connection, turn_id)
    connection.execute(update(alternatives).where(alternatives.c.id == rows[index].id).values(is_chosen=True))
    return _show_chosen(connection, turn_id)


def rewrite(connection: Connection, key: ConversationKey, turn_id: int, text: str) -> bool:
    """Replace a turn's text, and say whether there is such a turn. What was thought of the old words goes with them."""
    text = well_formed(text)
    of_turn = (turns.c.id == turn_id) & (turns.c.conversation_id == conversation_id(key))
    if not connection.execute(update(turns).where(of_turn).values(text=text)).rowcount:
        return False
    is_chosen = (alternatives.c.turn_id == turn_id) & alternatives.c.is_chosen
    rewritten = select(alternatives.c.id).where(is_chosen).where(alternatives.c.text != text)
    connection.execute(delete(ratings).where(ratings.c.alternative_id.in_(rewritten)))
    connection.execute(update(alternatives).where(is_chosen).values(text=text))
    return True


def chosen_id(connection: Connection, key: ConversationKey, turn_id: int) -> int | None:
    """The id of the version that counts, made where the reply has one text; `None` where there is no such reply."""
    text = _text_of(connection, key, turn_id)
    if text is None:
        return None
    query = select(alternatives.c.id).where(alternatives.c.turn_id == turn_id).where(alternatives.c.is_chosen)
    known: int | None = connection.scalar(query)
    if known is not None:
        return known
    first = insert(alternatives).values(turn_id=turn_id, text=text, is_chosen=True).returning(alternatives.c.id)
    made: int = connection.execute(first).scalar_one()
    return made


def _text_of(connection: Connection, key: ConversationKey, turn_id: int) -> str | None:
    query = (
        select(turns.c.text)
        .where(turns.c.id == turn_id)
        .where(turns.c.conversation_id == conversation_id(key))
        .where(turns.c.role == Role.ASSISTANT.value)
    )
    return connection.scalar(query)


def _rows(connection: Connection, turn_id: int) -> Sequence[Row[Any]]:
    query = select(alternatives).where(alternatives.c.turn_id == turn_id).order_by(alternatives.c.id)
    return connection.execute(query).all()


def _unchoose(connection: Connection, turn_id: int) -> None:
    connection.execute(update(alternatives).where(alternatives.c.turn_id == turn_id).values(is_chosen=False))


def _show_chosen(connection: Connection, turn_id: int) -> Alternatives:
    """Give the turn the text of the version that counts."""
    found = _as_alternatives(_rows(connection, turn_id))
    connection.execute(update(turns).where(turns.c.id == turn_id).values(text=found.texts[found.chosen]))
    return found


def _as_alternatives(rows: Sequence[Row[Any]]) -> Alternatives:
    chosen = next(index for index, row in enumerate(rows) if row.is_chosen)
    return Alternatives(tuple(row.text for row in rows), chosen)
