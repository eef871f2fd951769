"""Keeps the bot's token out of logs and error texts.

Telegram puts the token into every URL, so httpx logs it and python-telegram-bot repeats it in errors. Owns the
blotting out; knows nothing of what the texts are about.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_REDACTED = "[token]"
# A filter on a logger sees only what is logged on that very logger, so each is named.
_TALKATIVE = (
    "bot.adapters.telegram.adapter",
    "bot.adapters.telegram.channel",
    "bot.adapters.telegram.chats",
    "bot.adapters.telegram.commands",
    "bot.adapters.telegram.dispatch",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.proxy",
    "httpx",
    "telegram.Bot",
    "telegram.request.BaseRequest",
    "telegram.request.HTTPXRequest",
)


def redact(text: str, token: str) -> str:
    """`text` without `token`."""
    return text.replace(token, _REDACTED) if token else text


class _TokenFilter(logging.Filter):
    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if self._token in message:
            record.msg, record.args = redact(message, self._token), None
        if record.exc_info and record.exc_info[0] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            if self._token in trace:
                record.exc_info, record.exc_text = None, redact(trace, self._token)
        return True


@contextmanager
def token_kept_out_of_logs(token: str) -> Iterator[None]:
    """Blot `token` out of everything that Telegram's client libraries and this package log meanwhile."""
    token_filter = _TokenFilter(token)
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(token_filter)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(token_filter)
