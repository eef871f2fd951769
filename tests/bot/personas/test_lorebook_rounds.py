"""What told lore brings up, chance, groups, and the time that entries stay and rest."""

from collections import Counter
from typing import Any

import pytest

from bot.personas import lorebook
from bot.personas.lorebook import MAX_EARLIER_QUESTIONS, MAX_ROUNDS, LoreMoment, ScannedMessage, tell
from engine.persona import Persona
from engine.types import Role
from tests.bot.personas.lore_moments import decorated, is_told, only, report, told, with_lore

RECURSIVE = {"recursive": True}


def chain(*contents: str, book: dict[str, Any] | None = None, **last: Any) -> Persona:
    """Entries with the keys `k0`, `k1` and so on; `last` are more fields of the last one."""
    entries = [{"keys": [f"k{number}"], "content": content} for number, content in enumerate(contents)]
    entries[-1] |= last
    return with_lore(*entries, book=RECURSIVE if book is None else book)


def test_told_lore_brings_up_more() -> None:
    assert told(chain("A k1", "B k2", "C"), "k0") == ["A k1", "B k2", "C"]
    assert told(chain("A k1", "B k2", "C", book={}), "k0") == ["A k1"]
    assert told(chain("A", "B"), "k0") == ["A"]


def test_told_lore_may_say_what_an_entry_still_lacks() -> None:
    for lacking in ({"secondary_keys": ["k9"]}, {"content": "@@additional_keys k9\nB"}):
        persona = with_lore(
            {"keys": ["k0"], "content": "B", **lacking}, {"keys": ["k0"], "content": "A k9"}, book=RECURSIVE
        )
        assert told(persona, "k0") == ["B", "A k9"]
        assert told(persona, "k9") == []
    constant = with_lore(
        {"constant": True, "content": "@@additional_keys k9\nB"}, {"keys": ["k0"], "content": "A k9"}, book=RECURSIVE
    )
    assert told(constant, "k0") == ["B", "A k9"]
    unheard = with_lore(
        {"keys": ["k0"], "content": "B", "secondary_keys": ["k9"], "exclude_recursion": True},
        {"keys": ["k0"], "content": "A k9"},
        book=RECURSIVE,
    )
    assert told(unheard, "k0") == ["A k9"]


def test_whatever_the_scan_depth() -> None:
    persona = chain("A k1", "B", book={"recursive": True, "scan_depth": 1})
    assert told(persona, "k0") == ["A k1", "B"]
    assert told(chain("A k1", "B", scan_depth=0), "k0") == ["A k1", "B"]


def test_circles_end() -> None:
    assert told(chain("A k1", "B k0"), "k0") == ["A k1", "B k0"]


@pytest.mark.parametrize(("max_recursion", "num_told"), [(0, 4), (1, 2), (2, 3), (9, 4)])
def test_so_many_rounds(max_recursion: int, num_told: int) -> None:
    persona = chain("A k1", "B k2", "C k3", "D", book={"recursive": True, "max_recursion": max_recursion})
    assert len(told(persona, "k0")) == num_told


def test_rounds_end_in_any_case() -> None:
    persona = chain(*(f"{number} k{number + 1}" for number in range(200)))
    assert len(told(persona, "k0")) == MAX_ROUNDS


def test_so_much_lore_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    persona = chain("A k1", "B k2", "C k3", "D")
    monkeypatch.setattr(lorebook, "MAX_LORE_CHARACTERS_SEARCHED", len("A k1B k2"))
    assert told(persona, "k0") == ["A k1", "B k2", "C k3"]


def test_a_reason_names_what_brought_it_up() -> None:
    persona = with_lore(
        {"keys": ["k0"], "content": "A k1", "name": "Ember"}, {"keys": ["k1"], "content": "B"}, book=RECURSIVE
    )
    assert [entry.reason for entry in report(persona, "k0").told] == ['key "k0" in the last message', 'by lore "Ember"']


def test_exclude_recursion() -> None:
    persona = chain("A k1", "B", exclude_recursion=True)
    assert told(persona, "k0") == ["A k1"]
    assert told(persona, "k0 k1") == ["A k1", "B"]


def test_prevent_recursion() -> None:
    persona = with_lore(
        {"keys": ["k0"], "content": "A k1", "prevent_recursion": True}, {"keys": ["k1"], "content": "B"}, book=RECURSIVE
    )
    assert told(persona, "k0") == ["A k1"]


def test_delay_until_recursion() -> None:
    persona = with_lore(
        {"keys": ["k0"], "content": "A k1"},
        {"keys": ["k1"], "content": "B", "delay_until_recursion": 1},
        {"keys": ["k0"], "content": "C", "secondary_keys": ["k1"], "logic": "not_any"},
        {"keys": ["k0"], "content": "D", "secondary_keys": ["k1"], "logic": "not_any", "delay_until_recursion": 1},
        book=RECURSIVE,
    )
    # D is looked at only when A has said k1.
    assert told(persona, "k0") == ["A k1", "B", "C"]
    assert told(persona, "k1") == ["B"]


def test_levels_open_one_after_the_other() -> None:
    persona = with_lore(
        {"keys": ["k0"], "content": "First k9", "delay_until_recursion": 2},
        {"keys": ["k0"], "content": "Second", "delay_until_recursion": 5, "secondary_keys": ["k9"], "logic": "not_any"},
        {"keys": ["k0"], "content": "Third", "delay_until_recursion": 5, "secondary_keys": ["k9"]},
        book=RECURSIVE,
    )
    assert told(persona, "k0") == ["First k9", "Third"]


def test_a_level_waits_until_nothing_new_comes_up() -> None:
    persona = with_lore(
        {"keys": ["k0"], "content": "First k1"},
        {"keys": ["k0"], "content": "Level one", "delay_until_recursion": 1},
        {"keys": ["k1"], "content": "Second k2"},
        {"keys": ["k2"], "content": "Third", "groups": ["g"]},
        {"keys": ["k0"], "content": "Too late", "groups": ["g"], "group_override": True, "delay_until_recursion": 2},
        book=RECURSIVE,
    )
    assert told(persona, "k0") == ["First k1", "Level one", "Second k2", "Third"]


def test_hidden_keys_bring_up_and_notes_do_not() -> None:
    assert told(chain("A{{hidden_key:k1}}", "B"), "k0") == ["A{{hidden_key:k1}}", "B"]
    assert told(chain("A{{// k1}}{{comment:k1}}", "B"), "k0") == ["A{{// k1}}{{comment:k1}}"]


def test_names_in_told_lore_bring_up_more() -> None:
    persona = with_lore({"content": "A {{user}}", "constant": True}, {"keys": ["ann"], "content": "B"}, book=RECURSIVE)
    assert told(persona, "x", user_name="Ann") == ["A {{user}}", "B"]
    assert told(persona, "x", user_name="Bob") == ["A {{user}}"]
    assert told(persona, "x", user_name="Ann") == ["A {{user}}", "B"]


def shares(persona: Persona, num_draws: int = 400) -> Counter[str]:
    return Counter(text for seed in range(num_draws) for text in told(persona, "storm", seed=str(seed)))


def test_probability() -> None:
    assert is_told({"probability": 100}, "storm")
    assert not is_told({"probability": 0}, "storm")
    assert not is_told({"probability": 0, "constant": True}, "storm")
    persona = with_lore({"keys": ["storm"], "content": "A", "probability": 30})
    assert 80 < shares(persona)["A"] < 160


def test_chance_is_the_same_for_one_question_and_another_for_the_next() -> None:
    persona = with_lore({"keys": ["storm"], "content": "A", "probability": 50})
    results = [told(persona, "storm", num_before=number) for number in range(60)]
    assert results == [told(persona, "storm", num_before=number) for number in range(60)]
    assert 10 < results.count(["A"]) < 50
    assert 10 < sum(told(persona, f"storm {number}") == ["A"] for number in range(60)) < 50


def grouped(content: str, **more: Any) -> dict[str, Any]:
    return {"keys": ["storm"], "content": content, "groups": ["g"], **more}


def test_of_a_group_one_is_told() -> None:
    found = shares(with_lore(grouped("A"), grouped("B"), {"keys": ["storm"], "content": "C"}))
    assert found["C"] == 400
    assert found["A"] + found["B"] == 400
    assert 140 < found["A"] < 260


def test_a_groups_weights() -> None:
    found = shares(with_lore(grouped("A", group_weight=300), grouped("B", group_weight=100)))
    assert 260 < found["A"] < 340
    assert shares(with_lore(grouped("A", group_weight=0), grouped("B")), 50) == {"B": 50}
    assert shares(with_lore(grouped("A", group_weight=0), grouped("B", group_weight=0)), 20) == {"A": 20}


def test_a_groups_override() -> None:
    persona = with_lore(
        grouped("A", order=300), grouped("B", group_override=True), grouped("C", group_override=True, order=200)
    )
    assert shares(persona, 20) == {"C": 20}


def test_only_called_entries_take_part_in_a_group() -> None:
    assert told(with_lore(grouped("A"), grouped("B", keys=["calm"])), "storm") == ["A"]


def test_an_entry_of_two_groups_keeps_both_to_itself() -> None:
    persona = with_lore(grouped("A", groups=["g", "h"], group_override=True), grouped("B"), grouped("C", groups=["h"]))
    assert told(persona, "storm") == ["A"]


def test_a_group_that_was_told_stays_closed_for_what_it_brings_up() -> None:
    persona = with_lore(grouped("A calm"), grouped("B", keys=["calm"], group_override=True), book=RECURSIVE)
    assert told(persona, "storm") == ["A calm"]


def ages(entry: dict[str, Any], num_messages: int = 12, key_at: tuple[int, ...] = (0,)) -> list[int]:
    """After which messages `entry` is told, counted from 0, where everybody hears of the storm at `key_at`.

    Each message is answered, so that each is a question; the answers are not counted.
    """
    persona = with_lore({"keys": ["storm"], "content": "S.", "scan_depth": 1, **entry})
    found = []
    for newest in range(num_messages):
        messages = [ScannedMessage("storm" if number in key_at else "calm", Role.USER) for number in range(newest + 1)]
        if tell(persona, LoreMoment(tuple(answered(messages))), count_tokens=len, max_tokens=None).told:
            found.append(newest)
    return found


def answered(messages: list[ScannedMessage]) -> list[ScannedMessage]:
    """`messages` with an answer after each but the last, so that message `n` is number `2n + 1`."""
    return [one for message in messages for one in (message, ScannedMessage("ok", Role.ASSISTANT))][:-1]


def test_without_time_an_entry_is_told_when_it_is_called() -> None:
    assert ages({}, key_at=(0, 4)) == [0, 4]


@pytest.mark.parametrize(("sticky", "expected"), [(0, [0]), (1, [0]), (2, [0, 1]), (3, [0, 1]), (4, [0, 1, 2])])
def test_sticky_counts_messages(sticky: int, expected: list[int]) -> None:
    assert ages({"sticky": sticky}) == expected


def test_being_called_again_makes_nothing_stay_longer() -> None:
    assert ages({"sticky": 4}, key_at=(0, 1, 2)) == [0, 1, 2]
    assert ages({"sticky": 4}, key_at=(0, 3)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("cooldown", "expected"), [(0, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 2]), (4, [0, 3])])
def test_cooldown_counts_messages(cooldown: int, expected: list[int]) -> None:
    assert ages({"cooldown": cooldown}, 4, key_at=(0, 1, 2, 3)) == expected


def test_cooldown_begins_when_sticky_ends() -> None:
    assert ages({"sticky": 4, "cooldown": 4}, key_at=tuple(range(12))) == [0, 1, 2, 5, 6, 7, 10, 11]


def test_the_example_of_sillytaverns_documentation() -> None:
    persona = with_lore({"keys": ["storm"], "content": "S.", "scan_depth": 1, "sticky": 3, "cooldown": 2, "delay": 2})
    roles = (Role.ASSISTANT, Role.USER)
    messages = tuple(ScannedMessage("storm", roles[number % 2]) for number in range(8))
    moments = [LoreMoment(messages[: number + 1]) for number in range(8)]
    are_told = [bool(tell(persona, moment, count_tokens=len, max_tokens=None).told) for moment in moments]
    # delay, called, sticky, sticky, sticky, cooldown, cooldown, called
    assert are_told == [False, True, True, True, True, False, False, True]


def test_cooldown_holds_back_what_is_constant() -> None:
    assert ages({"keys": [], "constant": True, "cooldown": 4}, 6) == [0, 3]


def test_delay() -> None:
    entry = {"delay": 3}
    assert not is_told(entry, "storm", "b")
    assert is_told(entry, "storm", "b", "c")
    assert is_told(entry, "storm", num_before=2)
    assert not is_told({**entry, "constant": True}, "storm")


def test_sticky_goes_over_chance_and_groups() -> None:
    entry = {"sticky": 9, "groups": ["g"]}
    persona = with_lore(
        {"keys": ["storm"], "content": "A", "scan_depth": 1, **entry},
        {"keys": ["calm"], "content": "B", "scan_depth": 1, "groups": ["g"], "group_override": True},
    )
    assert told(persona, "calm") == ["B"]
    assert told(persona, "storm", "x", "calm") == ["A"]
    rare = with_lore({"keys": ["storm"], "content": "A", "scan_depth": 1, "sticky": 9, "probability": 50})
    for seed in map(str, range(30)):
        assert told(rare, "storm", "x", "calm", seed=seed) == told(rare, "storm", seed=seed)


def test_only_answered_messages_were_questions() -> None:
    persona = with_lore({"keys": ["storm"], "content": "A", "scan_depth": 1, "sticky": 9})
    unanswered = LoreMoment((ScannedMessage("storm", Role.USER), ScannedMessage("calm", Role.USER)))
    assert tell(persona, unanswered, count_tokens=len, max_tokens=None).told == ()


def test_what_stays_says_for_how_long() -> None:
    persona = with_lore({"keys": ["storm"], "content": "A", "scan_depth": 1, "sticky": 4})
    assert only(persona, "storm", "x", "calm").reason == "stays for 2 more messages"
    assert only(persona, "storm", "x", "calm", "x", "calm").reason == "stays for the last time"


@pytest.mark.parametrize(
    ("decorator", "expected"),
    [("@@keep_activate_after_match", [2, 3, 4, 5]), ("@@dont_activate_after_match", [2])],
)
def test_after_a_match(decorator: str, expected: list[int]) -> None:
    assert ages(decorated(decorator), 6, key_at=(2, 4)) == expected


def test_questions_long_ago_are_forgotten() -> None:
    entry = {"keys": ["storm"], "scan_depth": 1, **decorated("@@keep_activate_after_match")}
    calm = ["ok", "calm"]
    assert told(with_lore(entry), "storm", *calm * (MAX_EARLIER_QUESTIONS - 1)) == ["Secret."]
    assert told(with_lore(entry), "storm", *calm * (MAX_EARLIER_QUESTIONS + 1)) == []


def test_earlier_questions_look_back_as_far_as_entries_do() -> None:
    persona = with_lore({"keys": ["storm"], "content": "A", "scan_depth": 2, "sticky": 2})
    assert told(persona, "storm", "first question", "ok", "second question") == ["A"]


def test_a_large_book_that_brings_up_more_is_gone_through_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    num_looks = 0
    run = lorebook._Scan.run

    def counted(scan: Any) -> Any:
        nonlocal num_looks
        num_looks += 1
        return run(scan)

    monkeypatch.setattr(lorebook._Scan, "run", counted)
    entries = [{"keys": [f"k{number}"], "content": "A", "sticky": 2} for number in range(5_000)]
    persona = with_lore(*entries, book=RECURSIVE)
    assert told(persona, *["k1", "ok"] * 11, "calm") == ["A"]
    assert num_looks == 1 + lorebook.MAX_ENTRIES_GONE_THROUGH // 5_000
    assert told(with_lore(*entries), *["k1", "ok"] * 11, "calm") == ["A"]
    assert num_looks == 1 + lorebook.MAX_ENTRIES_GONE_THROUGH // 5_000 + 12
