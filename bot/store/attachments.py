"""The attachments folder: each file is named by the SHA-256 of its bytes (`ab/abcdef…`).

Owns the files, and the removal of those that no turn shows. Knows neither what a picture is nor whose it is:
`bot.store.repositories` links it to turns.
"""

import asyncio
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, delete, exists, select

from bot.errors import StoreError
from bot.store.database import Database
from bot.store.remedies import store_errors
from bot.store.tables import attachments, turn_attachments
from bot.types import Attachment

DIGEST = re.compile(r"[0-9a-f]{64}")
PART_SUFFIX = ".part"


class AttachmentStore:
    """Content-addressed files. Raises `StoreError`.

    `prune` spares what was put less than `grace_s` ago: the turn that shows it may not be stored yet.
    """

    def __init__(self, folder: Path, database: Database, *, grace_s: float = 3600) -> None:
        self._folder = folder
        self._database = database
        self._grace_s = grace_s
        # Held for one file at a time, so that a file is never removed between being put again and being linked.
        self._lock = threading.Lock()

    async def put(self, data: bytes, *, mime: str, width: int, height: int) -> Attachment:
        """Keep `data` safely on disk; the same bytes are kept once, and mended where the kept ones are damaged."""
        digest = hashlib.sha256(data).hexdigest()
        await asyncio.to_thread(self._keep, digest, data)
        return Attachment(digest, mime, len(data), width, height)

    async def read(self, digest: str) -> bytes:
        """The bytes with that digest, verified."""
        if not DIGEST.fullmatch(digest):
            raise StoreError(f"{digest!r} is not the SHA-256 of an attachment")
        return await asyncio.to_thread(self._read, digest)

    async def prune(self) -> int:
        """Delete files that no turn shows any more, and say how many."""
        return await self._database.write(self._prune)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _keep(self, digest: str, data: bytes) -> None:
        path = self._path(digest)
        with self._lock, store_errors(path):
            if path.exists() and path.read_bytes() == data:
                os.utime(path)
            else:
                write_atomically(path, data)

    def _read(self, digest: str) -> bytes:
        path = self._path(digest)
        with store_errors(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise StoreError(f"{path} is gone: put it back from a backup, or send the picture again") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"{path} is damaged: put it back from a backup, or send the picture again")
        return data

    def _prune(self, connection: Connection) -> int:
        is_shown = exists().where(turn_attachments.c.digest == attachments.c.digest)
        connection.execute(delete(attachments).where(~is_shown))
        kept = set(connection.scalars(select(attachments.c.digest)))
        # Inside the transaction, so that no turn can link a file while it goes.
        return self._remove_all_but(kept)

    def _remove_all_but(self, kept: set[str]) -> int:
        newest = time.time() - self._grace_s
        num_removed = 0
        with store_errors(self._folder):
            for path in list(self._own_files()):
                if path.name not in kept and self._remove_if_older(path, newest):
                    num_removed += not path.name.endswith(PART_SUFFIX)
        return num_removed

    def _own_files(self) -> Iterator[Path]:
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            if DIGEST.fullmatch(path.name) or path.name.endswith(PART_SUFFIX):
                yield path

    def _remove_if_older(self, path: Path, newest: float) -> bool:
        with self._lock:
            try:
                if path.stat().st_mtime > newest:
                    return False
                path.unlink()
            except FileNotFoundError:  # a part that has become whole since the folder was listed
                return False
            return True


def write_atomically(path: Path, data: bytes) -> None:
    """Write so that, whatever happens, the name has either all of `data` or is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=PART_SUFFIX)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders, and needs no such flush
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
