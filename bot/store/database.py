"""The SQLite file: opens it, migrates it, and says in plain words what is wrong with it.

Owns the engine, its pragmas and the order of writers. Knows no table's meaning: `bot.store.repositories` does.
"""

from pathlib import Path


class Database:
    """One SQLite file that many conversations use at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def upgrade(self) -> None:
        """Bring the file to the newest schema. Raises `StoreError` with the remedy where it cannot be used."""
        raise NotImplementedError

    async def revision(self) -> str | None:
        """The schema revision of the file, `None` where there is none yet. Never creates the file."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close all connections. Safe to call twice."""


def head_revision() -> str:
    """The newest schema revision that this Commedia knows."""
    raise NotImplementedError
