"""Incidents on disk: what comes within a day is counted together, and what is old is forgotten."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.store import incidents as incidents_module
from bot.store.database import Database
from bot.store.incidents import Incident, IncidentRecords

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=365)


def incident(kind: str = "poison", *, count: int = 1, hours_ago: float = 0, detail: str = "what") -> Incident:
    return Incident("discord", kind, count, NOW - timedelta(hours=hours_ago), detail)


@pytest.fixture
def records(database: Database) -> IncidentRecords:
    return IncidentRecords(database)


async def test_those_of_a_kind_are_counted_together(records: IncidentRecords) -> None:
    await records.add([incident(count=2, hours_ago=20, detail="first"), incident("forbidden", hours_ago=1)])
    await records.add([incident(count=3, detail="last")])
    assert await records.since(LONG_AGO) == [incident(count=5, detail="last"), incident("forbidden", hours_ago=1)]
    assert await records.since(NOW - timedelta(minutes=5)) == [incident(count=5, detail="last")]


async def test_after_a_quiet_day_counting_begins_anew(records: IncidentRecords) -> None:
    await records.add([incident(count=1000, hours_ago=25)])
    await records.add([incident(count=3)])
    assert await records.since(LONG_AGO) == [incident(count=3)]


async def test_what_is_old_or_too_much_is_forgotten(records: IncidentRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    await records.add([incident("old", hours_ago=31 * 24)])
    await records.add([])
    assert await records.since(LONG_AGO) == []
    monkeypatch.setattr(incidents_module, "MAX_KINDS", 3)
    await records.add([incident(str(number), hours_ago=number) for number in range(5)])
    assert [found.kind for found in await records.since(LONG_AGO)] == ["0", "1", "2"]
