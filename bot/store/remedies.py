"""What is wrong with the store, in plain words, and what to do about it.

Owns the translation of SQLite's and the system's errors into `StoreError`. Errors that only a bug can cause, such as a
broken constraint, pass through as they are.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bot.errors import StoreError

UNUSABLE = (
    "{path} cannot be used: give this user the right to read and write it and its folder, "
    "or point COMMEDIA_HOME at another folder"
)
FULL = "the disk that holds {path} is full: free some space, then go on; nothing that was stored is lost"
DAMAGED = "{path} is not a Commedia database, or is damaged: move it away and put back a backup, or start a new one"
BUSY = "{path} is held by another process: end any other `commedia` or tool that has it open, then try again"
BROKEN_DISK = "{path} could not be read or written ({detail}): check the disk and its quota"
NOT_SET_UP = "{path} has no tables of Commedia yet: run `commedia db upgrade`"
NEWER = (
    "{path} was written by a newer Commedia (schema {revision}): update Commedia, "
    "or point COMMEDIA_HOME at another folder"
)
NOT_A_FOLDER = "{path} cannot be made, because something there is not what it must be: move it away"

BY_SQLITE_CODE = {
    sqlite3.SQLITE_READONLY: UNUSABLE,
    sqlite3.SQLITE_CANTOPEN: UNUSABLE,
    sqlite3.SQLITE_PERM: UNUSABLE,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_LOCKED: BUSY,
    sqlite3.SQLITE_IOERR: BROKEN_DISK,
}
BY_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EACCES: UNUSABLE,
    errno.EPERM: UNUSABLE,
    errno.EROFS: UNUSABLE,
    errno.ENOTDIR: NOT_A_FOLDER,
    errno.EISDIR: NOT_A_FOLDER,
    errno.EEXIST: NOT_A_FOLDER,
}


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raise what goes wrong with `path` inside the block as a `StoreError`, where an admin can mend it."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreError(BUSY.format(path=path)) from error
    except (DBAPIError, sqlite3.Error) as error:
        remedy = _remedy_for_sqlite(error.orig if isinstance(error, DBAPIError) else error)
        if remedy is None:
            raise
        raise StoreError(remedy.format(path=path, detail=_primary_name(error))) from error
    except OSError as error:
        remedy = BY_ERRNO.get(error.errno or 0, BROKEN_DISK)
        raise StoreError(remedy.format(path=path, detail=error.strerror or type(error).__name__)) from error


def _remedy_for_sqlite(error: BaseException | None) -> str | None:
    if not isinstance(error, sqlite3.Error):
        return None
    if "no such table" in str(error):
        return NOT_SET_UP
    # Extended codes such as SQLITE_IOERR_WRITE keep their family in the low byte.
    return BY_SQLITE_CODE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)


def _primary_name(error: DBAPIError | sqlite3.Error) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    return getattr(original, "sqlite_errorname", "disk error")
