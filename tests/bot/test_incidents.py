"""Incidents: counted, told to the log ever more rarely, kept across restarts, and free of secrets."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from bot.errors import StoreError
from bot.incidents import MAX_DETAIL_LENGTH, MAX_KINDS, OTHER, Incidents
from bot.store.incidents import Incident

SECRET = "s3cret-of-the-webhook"
TOKEN = "123456789:AAabcdefghijklmnopqrstuvwxyz0123456"


class MemoryRecords:
    """Keeps what it is given, or fails while told to."""

    def __init__(self) -> None:
        self.kept: list[Incident] = []
        self.is_broken = False
        self.changed = asyncio.Event()

    async def add(self, happened: Sequence[Incident]) -> None:
        await asyncio.sleep(0)
        if self.is_broken:
            raise StoreError("the disk is full")
        self.kept += happened
        self.changed.set()

    def totals(self) -> dict[tuple[str, str], int]:
        totals: dict[tuple[str, str], int] = {}
        for incident in self.kept:
            place = incident.platform, incident.kind
            totals[place] = totals.get(place, 0) + incident.count
        return totals


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_ten_thousand_of_a_kind_are_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    incidents = Incidents(clock=lambda: now)
    for _ in range(10_000):
        incidents.note("discord", "poison", "an event without an id")
        now += 1
    assert incidents.counts() == {("discord", "poison"): 10_000}
    lines = warnings(caplog)
    assert lines[0] == "discord: poison: an event without an id"
    assert lines[1] == "discord: poison: an event without an id (60 since the last such line)"
    assert lines[2].endswith("(120 since the last such line)")
    assert lines[7].endswith("(3600 since the last such line)")
    assert len(lines) == 8  # after 1, 3, 7, 15, 31, 63 and 123 minutes


def test_after_a_quiet_time_a_kind_is_news_again(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    incidents = Incidents(clock=lambda: now)
    for now in (0.0, 30.0, 60.0, 10_000.0, 10_030.0, 10_061.0):  # noqa: B007 - the clock reads it
        incidents.note("discord", "poison", "again")
    assert len(warnings(caplog)) == 4
    incidents.note("discord", "forbidden", "another kind")
    incidents.note("telegram", "poison", "another platform")
    assert len(warnings(caplog)) == 6


def test_kinds_are_bounded() -> None:
    incidents = Incidents()
    for number in range(MAX_KINDS + 50):
        incidents.note("discord", f"kind {number}", "what")
    incidents.note("discord", "kind 0", "what")
    counts = incidents.counts()
    assert len(counts) == MAX_KINDS + 1
    assert counts["discord", OTHER] == 50
    assert counts["discord", "kind 0"] == 2


async def test_secrets_are_blotted_out_everywhere(records: MemoryRecords, caplog: pytest.LogCaptureFixture) -> None:
    incidents = Incidents(records, secrets=[SECRET])
    # At the edge, so that cutting first would leave the half of it.
    incidents.note("telegram", f"kind {SECRET}", f"{'x' * (MAX_DETAIL_LENGTH - 10)} {SECRET} {TOKEN}")
    await incidents.flush()
    (kept,) = records.kept
    for text in (kept.kind, kept.detail, caplog.text):
        assert SECRET[:5] not in text
        assert TOKEN[:9] not in text
    assert len(kept.detail) <= MAX_DETAIL_LENGTH


def test_a_detail_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    Incidents().note("discord", "poison", "first\nERROR forged\x1b[31m\r\u2028line")
    assert warnings(caplog) == ["discord: poison: first ERROR forged [31m line"]


async def test_counts_are_kept_as_they_grow(records: MemoryRecords) -> None:
    incidents = Incidents(records, flush_interval_s=0.001)
    running = asyncio.create_task(incidents.run())
    incidents.note("discord", "poison", "first")
    incidents.note("discord", "poison", "second")
    async with asyncio.timeout(10):
        await records.changed.wait()
    assert records.kept == [Incident("discord", "poison", 2, records.kept[0].last_at, "second")]
    assert datetime.now(UTC) - records.kept[0].last_at < timedelta(seconds=10)
    incidents.note("discord", "poison", "third")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert records.totals() == {("discord", "poison"): 3}


async def test_what_could_not_be_kept_is_kept_later(records: MemoryRecords) -> None:
    incidents = Incidents(records)
    incidents.note("discord", "poison", "old")
    incidents.note("discord", "forbidden", "only this")
    records.is_broken = True
    failing = asyncio.create_task(incidents.flush())
    await asyncio.sleep(0)
    incidents.note("discord", "poison", "new")
    await failing
    records.is_broken = False
    await incidents.flush()
    await incidents.flush()
    assert records.totals() == {("discord", "poison"): 2, ("discord", "forbidden"): 1}
    assert [incident.detail for incident in records.kept] == ["new", "only this"]
