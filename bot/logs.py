"""Logging: to the terminal and to `logs/commedia.log`, with every secret blotted out.

Owns handlers and redaction. Knows no secret but those it is given.
"""

import logging
import re
import sys
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

REDACTED = "[redacted]"
# A token of Telegram or Discord that came from elsewhere than our settings, such as a URL in a library's error.
_TOKEN_SHAPES = r"\d{6,12}:[A-Za-z0-9_-]{30,}|[MNO][A-Za-z0-9_-]{22,30}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}"  # noqa: S105
_NOISY = ("httpx", "httpcore", "discord", "telegram", "watchfiles", "uvicorn", "multipart", "PIL", "alembic")


class RedactingFormatter(logging.Formatter):
    """Formats a record, its traceback too, and then blots out secrets."""

    def __init__(self, pattern: str, *, secrets: Sequence[str] = ()) -> None:
        super().__init__(pattern)
        known = [re.escape(secret) for secret in sorted(secrets, key=len, reverse=True) if secret]
        self._secret = re.compile("|".join([*known, _TOKEN_SHAPES]))

    def format(self, record: logging.LogRecord) -> str:
        return self._secret.sub(REDACTED, super().format(record))


def configure_logging(level: str, *, folder: Path | None = None, secrets: Sequence[str] = ()) -> None:
    """Send the log to stderr, and to `folder/commedia.log` where a folder is given. Replaces earlier handlers."""
    plain = RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", secrets=secrets)
    terminal: logging.Handler
    if sys.stderr.isatty():
        # Without rich_tracebacks, tracebacks pass through the formatter and so are redacted too.
        terminal = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
        terminal.setFormatter(RedactingFormatter("%(message)s", secrets=secrets))
    else:
        terminal = logging.StreamHandler()
        terminal.setFormatter(plain)
    handlers: list[logging.Handler] = [terminal]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file = RotatingFileHandler(folder / "commedia.log", maxBytes=5_000_000, backupCount=3, encoding="utf-8")
        file.setFormatter(plain)
        handlers.append(file)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
