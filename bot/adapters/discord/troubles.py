"""What went wrong on Discord beside single replies, told to whoever runs the bot.

Owns the kinds of trouble. Does not know where it is kept: `bot.incidents` does. Nothing here holds what anybody wrote.
"""

import logging

from bot.adapters.base import IncidentLog

logger = logging.getLogger(__name__)

PLATFORM = "discord"

FORBIDDEN = "forbidden"
GONE = "gone"
WEBHOOK = "webhook"
RECONNECT = "reconnect"
BAD_EVENT = "bad event"
CATCH_UP = "catch-up"
UNDELIVERED = "undelivered"


class Troubles:
    """Notes incidents; without a place to note them, the log has them."""

    def __init__(self, incidents: IncidentLog | None) -> None:
        self._incidents = incidents

    def note(self, kind: str, detail: str) -> None:
        """Something of `kind` happened; `detail` says what, where, and how to mend it."""
        if self._incidents is not None:
            self._incidents.note(PLATFORM, kind, detail)
        else:
            logger.warning("Discord: %s: %s", kind, detail)
