"""Moments are kept in UTC, wherever they come from."""

from datetime import UTC, datetime, timedelta, timezone

from sqlalchemy.dialects import sqlite

from bot.store.tables import UtcDateTime


def test_a_moment_of_another_time_zone_is_the_same_moment() -> None:
    in_shanghai = datetime(2026, 11, 22, 18, 30, tzinfo=timezone(timedelta(hours=8)))
    stored = UtcDateTime().process_bind_param(in_shanghai, sqlite.dialect())
    assert stored == datetime(2026, 11, 22, 10, 30)
    assert UtcDateTime().process_result_value(stored, sqlite.dialect()) == in_shanghai


def test_what_is_given_back_is_utc() -> None:
    found = UtcDateTime().process_result_value(datetime(2026, 11, 22, 10, 30), sqlite.dialect())
    assert found is not None
    assert found.tzinfo is UTC
