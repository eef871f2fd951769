"""What every test of the bot begins with."""

import contextlib
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """`configure_logging` changes the whole process."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    names = [name for name, found in root.manager.loggerDict.items() if isinstance(found, logging.Logger)]
    levels = {name: logging.getLogger(name).level for name in names}
    root_level = root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        with contextlib.suppress(OSError):  # the disk that is full in one test
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(root_level)
    for name, found in list(root.manager.loggerDict.items()):
        if isinstance(found, logging.Logger):
            found.setLevel(levels.get(name, logging.NOTSET))
