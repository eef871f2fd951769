"""Which replica answers whom."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.backends.ray_serve.routing import home_of, ranked, session_of

NAMES = ["r1", "r2", "r3", "r4"]
SESSIONS = [session_of(f"discord:{number}:nell") for number in range(400)]


@given(st.permutations(NAMES), st.sampled_from(SESSIONS))
def test_a_home_does_not_depend_on_the_order(names: list[str], session: str) -> None:
    assert home_of(session, names) == home_of(session, NAMES)


@given(st.sampled_from(NAMES))
def test_only_who_lived_there_moves_when_a_replica_goes(gone: str) -> None:
    rest = [name for name in NAMES if name != gone]
    moved = [session for session in SESSIONS if home_of(session, rest) != home_of(session, NAMES)]
    assert all(home_of(session, NAMES) == gone for session in moved)
    assert len(moved) == sum(home_of(session, NAMES) == gone for session in SESSIONS)


def test_homes_are_spread_evenly() -> None:
    counts = Counter(home_of(session, NAMES) for session in SESSIONS)
    assert all(60 <= counts[name] <= 140 for name in NAMES)


def test_home_comes_first_and_the_others_stand_by() -> None:
    session = SESSIONS[0]
    home = home_of(session, NAMES)
    first, others = ranked(session, dict.fromkeys(NAMES, 1), max_running=2)
    assert first == [home]
    assert sorted(others) == sorted(set(NAMES) - {home})


def test_a_full_home_is_one_among_all() -> None:
    session = SESSIONS[0]
    load = dict.fromkeys(NAMES, 0) | {home_of(session, NAMES): 2}
    assert ranked(session, load, max_running=2) == [NAMES]


def test_without_a_conversation_the_least_loaded_may_answer() -> None:
    assert ranked("", dict.fromkeys(NAMES, 0), max_running=2) == [NAMES]


def test_nobody_there_is_no_error() -> None:
    assert ranked("s", {}, max_running=2) == [[]]


def test_a_session_tells_nothing_of_the_conversation() -> None:
    session = session_of("discord:1234:nell")
    assert "1234" not in session
    assert session != session_of("discord:1235:nell")
    assert session_of("") == ""
