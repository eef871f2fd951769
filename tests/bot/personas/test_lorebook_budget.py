"""What is dropped where there is no room, and what holds for any lorebook."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.personas.lorebook import (
    MAX_CHARACTERS_OVER_BUDGET,
    MAX_TOKENS_IF_UNKNOWN,
    LoreMoment,
    LoreReport,
    ScannedMessage,
    tell,
)
from engine.lore import LoreEntry
from engine.persona import Persona
from engine.types import Role
from tests.bot.personas.lore_moments import conversation, report, told, with_lore


def always(text: str, **more: Any) -> dict[str, Any]:
    return {"content": text, "constant": True, **more}


def test_without_a_budget_all_is_told() -> None:
    persona = with_lore(always("one two"), always("three four"))
    assert told(persona, "x") == ["one two", "three four"]


def test_the_lowest_priority_goes_first() -> None:
    persona = with_lore(always("a a", priority=2), always("b b", priority=1), always("c c", priority=3))
    assert told(persona, "x", max_tokens=6) == ["a a", "b b", "c c"]
    assert told(persona, "x", max_tokens=5) == ["a a", "c c"]
    assert told(persona, "x", max_tokens=2) == ["c c"]
    assert told(persona, "x", max_tokens=0) == []
    assert told(persona, "x", max_tokens=-5) == []


def test_the_books_budget_and_the_contexts() -> None:
    persona = with_lore(always("a a", priority=2), always("b b"), book={"token_budget": 2})
    assert told(persona, "x", max_tokens=99) == ["b b"]
    assert told(persona, "x", max_tokens=1) == []
    roomy = with_lore(always("a a", priority=2), always("b b"), book={"token_budget": 99})
    assert told(roomy, "x", max_tokens=2) == ["b b"]


def test_with_one_priority_the_lower_order_goes_first() -> None:
    persona = with_lore(always("a a", order=2), always("b b", order=1))
    assert told(persona, "x", max_tokens=2) == ["a a"]
    equal = with_lore(always("a a"), always("b b"))
    assert told(equal, "x", max_tokens=2) == ["a a"]


def test_what_lore_brought_up_goes_before_what_people_said() -> None:
    persona = with_lore(
        {"keys": ["rain"], "content": "b b"}, {"keys": ["storm"], "content": "rain"}, book={"recursive": True}
    )
    assert told(persona, "storm", max_tokens=3) == ["b b", "rain"]
    assert told(persona, "storm", max_tokens=2) == ["rain"]


def test_what_never_fits_takes_nothing_with_it() -> None:
    persona = with_lore(always("much too long for this", priority=999), always("a a"))
    assert told(persona, "x", max_tokens=3) == ["a a"]


def test_what_ignores_the_budget_stays_and_takes_its_room() -> None:
    persona = with_lore(always("a a a a", ignore_budget=True, priority=0), always("b b"), always("c"))
    assert told(persona, "x", max_tokens=6) == ["a a a a", "b b"]
    assert told(persona, "x", max_tokens=5) == ["a a a a", "c"]
    assert told(persona, "x", max_tokens=1) == ["a a a a"]


def test_the_report_says_what_was_dropped_and_why() -> None:
    persona = with_lore(always("a a", name="Gull", priority=1), always("b b"))
    (dropped,) = report(persona, "x", max_tokens=3).dropped
    assert (dropped.name, dropped.num_tokens) == ("Gull", 2)
    assert dropped.reason == "no room: always, 2 tokens, and there are 3 for all"


def test_without_lore_nothing_is_told() -> None:
    assert report(with_lore(), "x") == LoreReport()
    assert told(with_lore(always("a"))) == ["a"]  # and without messages what is constant


ENTRIES = st.fixed_dictionaries(
    {"keys": st.lists(st.sampled_from(["a", "b", "雨", "/[ab]/", "(", "{{user}}", "a b"]), min_size=1, max_size=3)},
    optional={
        "content": st.text(alphabet="ab雨 @\n{}:/", min_size=1).filter(str.strip),
        "secondary_keys": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        "logic": st.sampled_from(["and_any", "and_all", "not_any", "not_all"]),
        "order": st.integers(-3, 3),
        "priority": st.integers(-3, 3),
        "constant": st.booleans(),
        "regex": st.booleans(),
        "ignore_budget": st.booleans(),
        "probability": st.sampled_from([0, 50, 100]),
        "groups": st.lists(st.sampled_from(["g", "h"]), max_size=2),
        "sticky": st.integers(0, 4),
        "cooldown": st.integers(0, 4),
        "delay_until_recursion": st.integers(0, 3),
        "position": st.sampled_from(["before_char", "at_depth"]),
    },
)


def completed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"content": f"text {number}", **entry} for number, entry in enumerate(entries)]


@settings(deadline=None)
@given(
    st.lists(ENTRIES, max_size=8).map(completed),
    st.lists(st.text(alphabet="ab雨 {}/", max_size=12), max_size=7),
    st.none() | st.integers(0, 12),
    st.booleans(),
)
def test_what_holds_for_any_lorebook(
    entries: list[dict[str, Any]], texts: list[str], max_tokens: int | None, is_recursive: bool
) -> None:
    persona = with_lore(*entries, book={"recursive": is_recursive})
    found = report(persona, *texts, max_tokens=max_tokens, seed="s", user_name="a")
    assert found == report(persona, *texts, max_tokens=max_tokens, seed="s", user_name="a")
    num_held = sum(entry.num_tokens for entry in found.told if entry.ignores_budget)
    num_others = sum(entry.num_tokens for entry in found.told if not entry.ignores_budget)
    if max_tokens is not None:
        assert num_others <= max(0, max_tokens - num_held)
    else:
        assert not found.dropped
    shown = [entry.text for entry in (*found.told, *found.dropped)]
    assert len(shown) == len(set(shown))
    assert all(text.strip() for text in shown)
    places = [(entry.order, entry.index) for entry in found.told]
    assert places == sorted(places)
    assert all(persona.lore[entry.index].is_enabled for entry in found.told)


@settings(deadline=None)
@given(st.text(max_size=60), st.text(min_size=1, max_size=40).filter(str.strip), st.text(min_size=1, max_size=40))
def test_any_text_can_be_scanned(message: str, content: str, key: str) -> None:
    for more in ({}, {"regex": True}, {"case_sensitive": True}, {"whole_words": False}):
        persona = with_lore({"keys": [key], "content": content, **more}, book={"recursive": True})
        assert len(report(persona, message, content).told) <= 1


def large_book() -> Persona:
    entries = [
        {
            "keys": [f"word{number}", f"two words{number}", f"雨{number}"],
            "content": f"Lore {number} of word{number + 1}.",
            "secondary_keys": ["said"] if number % 3 else [],
            "sticky": 2 if number % 10 == 0 else 0,
        }
        for number in range(1_000)
    ]
    return with_lore(*entries, book={"recursive": True, "max_recursion": 3})


def test_large_books_are_quick() -> None:
    persona = large_book()
    texts = [f"Somebody said word{number * 7} in passing. " + "And more was told. " * 20 for number in range(60)]
    report(persona, *texts[:24])
    taken = []
    for number in range(1, 30):
        began = time.process_time()
        assert report(persona, *texts[number : 24 + number]).told
        taken.append(time.process_time() - began)
    assert min(taken) < 0.02  # the others may have had to share the machine


@pytest.mark.parametrize("role", list(Role))
def test_messages_of_any_role_are_scanned(role: Role) -> None:
    persona = with_lore({"keys": ["storm"], "content": "S."})
    moment = LoreMoment((ScannedMessage("storm", role),))
    assert len(tell(persona, moment, count_tokens=len, max_tokens=None).told) == 1


def test_two_personas_with_one_lorebook_and_other_names() -> None:
    lore = (LoreEntry(keys=("{{char}}",), content="S."),)
    for name, other in (("Mira", "Nora"), ("Nora", "Mira")):
        persona = with_lore().model_copy(update={"lore": lore, "name": name})
        for said, num_told in ((name, 1), (other, 0)):
            moment = LoreMoment(conversation(said))
            assert len(tell(persona, moment, count_tokens=len, max_tokens=None).told) == num_told


def test_a_book_of_megabytes_is_not_counted_through() -> None:
    persona = with_lore(*(always(f"{number} " * 200, priority=number) for number in range(2_000)))
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text.split())

    found = tell(persona, LoreMoment(conversation("x")), count_tokens=count, max_tokens=500)
    assert [entry.priority for entry in found.told] == [1998, 1999]
    assert len(found.dropped) == 1_998
    assert len(counted) < 20


def test_where_the_room_is_unknown_there_is_a_bound_all_the_same() -> None:
    persona = with_lore(
        *(always("a " * 10_000 + str(number)) for number in range(10)), book={"token_budget": 1_000_000}
    )
    assert len(told(persona, "x")) == MAX_TOKENS_IF_UNKNOWN // 10_001


def test_what_ignores_the_budget_is_no_book_of_its_own() -> None:
    texts = [f"{number} {'a' * 90_000}" for number in range(4)]
    persona = with_lore(*(always(text, ignore_budget=True) for text in texts))
    assert len(told(persona, "x", max_tokens=0)) == MAX_CHARACTERS_OVER_BUDGET // 90_000
