"""Logging: to the terminal and to `logs/commedia.log`, with every secret blotted out.

Owns handlers and redaction. Knows no secret but those it is given.
"""

import logging
import re
import sys
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.logging import RichHandler

from bot.errors import BotError, SettingsError
from engine.errors import EngineError

REDACTED = "[redacted]"
# A token of Telegram or Discord that came from elsewhere than our settings, such as a URL in a library's error.
_TOKEN_SHAPES = (
    r"\d{6,12}(?::|%3[Aa])[A-Za-z0-9_-]{30,}|[MNO][A-Za-z0-9_-]{22,30}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}"  # noqa: S105
)
_NOISY = (
    "httpx", "httpcore", "discord", "telegram", "watchfiles", "uvicorn", "multipart", "PIL", "alembic",
    "aiosqlite",  # notes every statement with its values: what people said
)  # fmt: skip


class Redaction:
    """Blots secrets out of a text: the given ones, and whatever looks like a token."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        known = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True) if secret]
        self._secret = re.compile("|".join([*known, _TOKEN_SHAPES]))

    def __call__(self, text: str) -> str:
        return self._secret.sub(REDACTED, text)


class RedactingFormatter(logging.Formatter):
    """Formats a record, its traceback too, and then blots out secrets."""

    def __init__(self, pattern: str, *, secrets: Sequence[str] = ()) -> None:
        super().__init__(pattern)
        self._redact = Redaction(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class _Outlet(logging.Handler):
    """A handler that says once, in one line, that it fails. Logging's own way shows the record, secrets and all."""

    _has_complained = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not self._has_complained:
            self._has_complained = True
            error = sys.exc_info()[1]
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            sys.stderr.write(f"commedia: the log of {record.name} cannot be written: {reason}\n")


class _Terminal(_Outlet, RichHandler):
    """A terminal that somebody looks at."""


class _Stream(_Outlet, logging.StreamHandler[TextIO]):
    """A terminal that something else reads."""


class _File(_Outlet, RotatingFileHandler):
    """The log file and its predecessors."""


def configure_logging(level: str, *, folder: Path | None = None, secrets: Sequence[str] = ()) -> None:
    """Send the log to stderr, and to `folder/commedia.log` where a folder is given. Replaces earlier handlers.

    Raises `SettingsError` where the log cannot be written.
    """
    plain = RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", secrets=secrets)
    terminal: logging.Handler
    if sys.stderr.isatty():
        # Without rich_tracebacks, tracebacks pass through the formatter and so are redacted too.
        terminal = _Terminal(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
        terminal.setFormatter(RedactingFormatter("%(message)s", secrets=secrets))
    else:
        terminal = _Stream()
        terminal.setFormatter(plain)
    handlers: list[logging.Handler] = [terminal]
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = _File(folder / "commedia.log", maxBytes=5_000_000, backupCount=3, encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"The log cannot be written to {folder.absolute()}: {error.strerror}. "
                "Make the folder writable, or name another home in COMMEDIA_HOME."
            ) from None
        file.setFormatter(plain)
        handlers.append(file)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def log_failure(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Log `what` failed: in one line where the error says what to do, with its traceback where it is a bug."""
    is_expected = isinstance(error, (BotError, EngineError))
    logger.error("%s: %s", what, error, exc_info=None if is_expected else error)
