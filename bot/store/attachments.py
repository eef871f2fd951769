"""The attachments folder: each file is named by the SHA-256 of its bytes (`ab/abcdef…`).

Owns the files. Knows neither what a picture is nor whose it is: `bot.store.repositories` links it to turns.
"""

from pathlib import Path

from bot.store.database import Database
from bot.types import Attachment


class AttachmentStore:
    """Content-addressed files. Raises `StoreError`."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database

    async def put(self, data: bytes, *, mime: str, width: int, height: int) -> Attachment:
        """Keep `data` safely on disk; the same bytes are kept once."""
        raise NotImplementedError

    async def read(self, digest: str) -> bytes:
        """The bytes with that digest, verified."""
        raise NotImplementedError

    async def prune(self) -> int:
        """Delete files that no turn shows any more, and say how many."""
        raise NotImplementedError
