"""Where adapters tell what went wrong beside single replies, such as a missing permission or a broken event.

Owns counting, and how often the log hears of it: ten thousand of one kind are a few lines. Knows not how anything is
mended: whoever notes an incident says so.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from bot.adapters.base import IncidentLog
from bot.errors import StoreError
from bot.logs import Redaction
from bot.store.incidents import Incident

logger = logging.getLogger(__name__)

MAX_KINDS = 200
MAX_KIND_LENGTH = 60
MAX_DETAIL_LENGTH = 300
OTHER = "other"
FIRST_INTERVAL_S = 60.0
MAX_INTERVAL_S = 3600.0


class Records(Protocol):
    """Where incidents outlive a restart: `bot.store.incidents.IncidentRecords`. Raises `StoreError`."""

    async def add(self, happened: Sequence[Incident]) -> None:
        """Count what happened along with what is known."""


@dataclass(slots=True)
class _Pace:
    """When the log hears of a kind the next time, and how many it has not heard of."""

    interval_s: float
    next_at: float
    last_at: float
    num_unsaid: int = 0


class Incidents(IncidentLog):
    """Counts incidents, logs the first and then ever fewer of a kind, and keeps the count. Never raises.

    `secrets` are blotted out, also in what is kept. `clock` gives seconds.
    """

    def __init__(
        self,
        records: Records | None = None,
        *,
        secrets: Sequence[str] = (),
        flush_interval_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._redact = Redaction(secrets)
        self._flush_interval_s = flush_interval_s
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()
        self._paces: dict[tuple[str, str], _Pace] = {}
        self._unkept: dict[tuple[str, str], Incident] = {}

    def note(self, platform: str, kind: str, detail: str) -> None:
        """Count an incident, and log it if one of its kind is due."""
        # First the secrets, then the length: half a secret would not be known as one.
        kind = _one_line(self._redact(kind), MAX_KIND_LENGTH)
        if (platform, kind) not in self._counts and len(self._counts) >= MAX_KINDS:
            kind = OTHER
        detail = _one_line(self._redact(detail), MAX_DETAIL_LENGTH)
        self._counts[platform, kind] += 1
        before = self._unkept.get((platform, kind))
        num_unkept = 1 + (before.count if before is not None else 0)
        self._unkept[platform, kind] = Incident(platform, kind, num_unkept, datetime.now(UTC), detail)
        self._log_if_due(platform, kind, detail)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many there were since the start, by platform and kind."""
        return dict(self._counts)

    async def run(self) -> None:
        """Keep what was counted, every few seconds and in the end, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._flush_interval_s)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Keep what was counted, all of it in one transaction. What cannot be kept now is kept the next time."""
        if not self._unkept or self._records is None:
            return
        taken, self._unkept = self._unkept, {}
        try:
            await self._records.add(list(taken.values()))
        except StoreError as error:
            self._take_back(taken)
            logger.error("incidents could not be kept for `commedia doctor`, and are tried again: %s", error)

    def _take_back(self, taken: Mapping[tuple[str, str], Incident]) -> None:
        for place, old in taken.items():
            new = self._unkept.get(place, old)
            count = old.count + (new.count if new is not old else 0)
            self._unkept[place] = Incident(old.platform, old.kind, count, new.last_at, new.detail)

    def _log_if_due(self, platform: str, kind: str, detail: str) -> None:
        now = self._clock()
        pace = self._paces.setdefault((platform, kind), _Pace(FIRST_INTERVAL_S, now, now))
        is_quiet_again = now - pace.last_at > pace.interval_s
        pace.last_at = now
        pace.num_unsaid += 1
        if now < pace.next_at:
            return
        if is_quiet_again:
            pace.interval_s = FIRST_INTERVAL_S
        more = f" ({pace.num_unsaid} since the last such line)" if pace.num_unsaid > 1 else ""
        logger.warning("%s: %s: %s%s", platform, kind, detail, more)
        pace.num_unsaid = 0
        pace.next_at = now + pace.interval_s
        pace.interval_s = min(pace.interval_s * 2, MAX_INTERVAL_S)


def _one_line(text: str, max_length: int) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"
