"""Each trouble gets its own remedy; what is a bug stays one."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from bot.errors import StoreError
from bot.store.remedies import store_errors

PATH = Path("home") / "commedia.db"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("SQLITE_FULL", "free some space"),
        ("SQLITE_READONLY_DIRECTORY", "cannot be used"),
        ("SQLITE_CANTOPEN", "cannot be used"),
        ("SQLITE_BUSY_SNAPSHOT", "another process"),
        ("SQLITE_NOTADB", "not a Commedia database"),
        ("SQLITE_CORRUPT_INDEX", "damaged"),
        ("SQLITE_IOERR_WRITE", "(SQLITE_IOERR_WRITE): check the disk"),
    ],
)
def test_sqlite(name: str, remedy: str) -> None:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    with pytest.raises(StoreError) as caught, store_errors(PATH):
        raise error
    assert remedy in str(caught.value)
    assert str(PATH) in str(caught.value)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EPERM, "cannot be used"),
        (errno.ENOTDIR, "move it away"),
        (errno.ENAMETOOLONG, f"({os.strerror(errno.ENAMETOOLONG)}): check the disk"),
    ],
)
def test_the_system(number: int, remedy: str) -> None:
    with pytest.raises(StoreError) as caught, store_errors(PATH):
        raise OSError(number, os.strerror(number))
    assert remedy in str(caught.value)


@pytest.mark.parametrize("bug", [sqlite3.IntegrityError("UNIQUE"), sqlite3.ProgrammingError("closed"), KeyError("x")])
def test_bugs_pass_through(bug: Exception) -> None:
    with pytest.raises(type(bug)), store_errors(PATH):
        raise bug


def test_the_cause_is_kept() -> None:
    cause = PermissionError(errno.EACCES, "no")
    with pytest.raises(StoreError) as caught, store_errors(PATH):
        raise cause
    assert caught.value.__cause__ is cause
