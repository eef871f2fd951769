"""Which entries a conversation calls: keys, second keys, patterns, and how far back is looked."""

import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.personas import lore_keys
from bot.personas.lore_keys import MAX_PATTERNS_S, MAX_SCANS_OVER, KeyIndex, Patience, Spelling
from bot.personas.macros import MacroContext
from bot.words import fold, has_any
from tests.bot.personas.lore_moments import decorated, is_told, only, told, with_lore


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ({}, "Tell me about the STORM!", True),
        ({}, "storms", False),
        ({}, "brainstorm", False),
        ({"whole_words": False}, "brainstorms", True),
        ({"whole_words": False}, "strom", False),
        ({"keys": ["nothing", "storm"]}, "a storm", True),
        ({"keys": ["the bell"]}, "Who rang the\nbell?", True),
        ({"keys": ["the bell"]}, "the bells", False),
        ({"keys": ["the bell"], "whole_words": False}, "the  bells", True),
        ({"keys": ["c++"]}, "I like c++.", True),
        ({"keys": ["c++"]}, "abc++", False),
        ({"keys": ["!!!"]}, "wow !!!", True),
        ({"keys": ["!!!"]}, "wow !!", False),
        ({"keys": ["Straße"]}, "in der STRASSE", True),
        ({"keys": ["ｓｔｏｒｍ"]}, "a storm", True),
        ({"keys": ["storm"], "case_sensitive": True}, "a storm", True),
        ({"keys": ["storm"], "case_sensitive": True}, "a Storm", False),
        ({"keys": ["Storm"], "case_sensitive": True}, "Storms", False),
        ({"keys": ["Storm"], "case_sensitive": True, "whole_words": False}, "BrainStorms", True),
        ({"keys": ["Sto"], "case_sensitive": True, "whole_words": False}, "BrainStorms", True),
        ({"keys": ["Sto"], "case_sensitive": True, "whole_words": False}, "brainstorms", False),
        ({"keys": ["s", "zz"], "whole_words": False}, "brainstorms", True),
        ({"keys": ["rm", "zz"], "whole_words": False}, "brainstorms", True),
        ({"keys": ["rs", "zz"], "whole_words": False}, "brainstorms", False),
        ({"keys": ["a b"]}, "xa b, a bx, a b", True),
        ({"keys": ["a b"]}, "xa b, a bx, _a b", False),
        ({"keys": ["  "]}, "a b", False),
        ({"keys": [" storm "]}, "a storm", True),
    ],
)
def test_keys(entry: dict[str, Any], text: str, expected: bool) -> None:
    assert is_told(entry, text) is expected


@pytest.mark.parametrize(
    ("key", "text"),
    [("雨", "今天下雨了"), ("ねこ", "ねこがいる"), ("고양이", "고양이는"), ("แมว", "แมวดำ"), ("雨 天", "雨  天气")],
)
def test_scripts_without_spaces_have_no_whole_words(key: str, text: str) -> None:
    assert is_told({"keys": [key]}, text)
    assert not is_told({"keys": [key]}, "rain")


@pytest.mark.parametrize(
    ("logic", "are_called"),
    [
        ("and_any", {"rain", "rain wind"}),
        ("and_all", {"rain wind"}),
        ("not_any", {""}),
        ("not_all", {"", "rain"}),
    ],
)
def test_secondary_keys(logic: str, are_called: set[str]) -> None:
    entry = {"secondary_keys": ["rain", "wind"], "logic": logic}
    assert {said for said in ("", "rain", "rain wind") if is_told(entry, f"storm {said}")} == are_called
    assert not is_told(entry, "rain wind")


def test_without_secondary_keys_logic_says_nothing() -> None:
    assert is_told({"logic": "and_all"}, "storm")


def test_keys_and_secondary_keys_may_stand_in_different_messages() -> None:
    assert is_told({"secondary_keys": ["rain"]}, "rain", "Oh", "storm")


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ({"keys": ["st[ao]rm"], "regex": True}, "STARM", True),
        ({"keys": ["st[ao]rm"], "regex": True}, "a strom", False),
        ({"keys": ["st[ao]rm"], "regex": True, "case_sensitive": True}, "STARM", False),
        ({"keys": ["st[ao]rm"]}, "starm", False),
        ({"keys": ["(", "x"], "regex": True}, "( x", True),
        ({"keys": ["("], "regex": True}, "(", False),
        ({"keys": ["(?:a{9999}){9999}"], "regex": True}, "a" * 99, False),
        ({"keys": ["storm"], "regex": True, "secondary_keys": ["never said"]}, "storm", True),
        ({"keys": ["storm"], "regex": True, "constant": True}, "calm", False),
        ({"keys": ["/st[ao]rm/i"], "regex": True}, "a STARM", True),
        ({"keys": ["/st[ao]rm/"], "regex": True}, "a STARM", False),
        ({"keys": ["/st[ao]rm/"]}, "starm", True),
        ({"keys": ["/st[ao]rm/"]}, "STARM", False),
        ({"keys": ["/st[ao]rm/gi"]}, "STARM", True),
        ({"keys": ["/^b/m"]}, "a\nb", True),
        ({"keys": ["/^b/"]}, "a\nb", False),
        ({"keys": ["/a.b/s"]}, "a\nb", True),
        ({"keys": ["/a[^]b/"]}, "a\nb", True),
        ({"keys": ["/(?<x>a)\\k<x>/"]}, "aa", True),
        ({"keys": ["/[/"]}, "[", False),
        ({"keys": ["/home/q"]}, "/home/q", True),
        ({"secondary_keys": ["/r[a]in/"]}, "storm rain", True),
        ({"secondary_keys": ["/r[a]in/"]}, "storm r[a]in", False),
    ],
)
def test_patterns(entry: dict[str, Any], text: str, expected: bool) -> None:
    assert is_told(entry, text) is expected


def test_a_pattern_may_ask_who_spoke() -> None:
    entry = {"keys": [r"/\x01{{user}}:[^\x01]*?hello/"]}
    assert is_told(entry, "oh hello", user_name="A.n")
    assert not is_told(entry, "hello", "bye", user_name="A.n")


def test_macros_in_keys() -> None:
    assert is_told({"keys": ["{{char}}'s boat"]}, "mira's boat")
    assert is_told({"keys": ["<BOT>"], "content": "Secret."}, "Mira!")
    assert is_told({"keys": ["{{user}}"]}, "I, Ann, was there", user_name="Ann")
    assert not is_told({"keys": ["{{user}}"]}, "I, Ann, was there", user_name="Bob")
    assert not is_told({"keys": ["{{user}}"]}, "I, Ann, was there")
    assert is_told({"keys": ["/I am {{user}}/"]}, "I am A.n", user_name="A.n")
    assert not is_told({"keys": ["/I am {{user}}/"]}, "I am Axn", user_name="A.n")


def test_a_nickname_goes_over_the_name_in_keys() -> None:
    persona = with_lore({"keys": ["{{char}}"], "content": "Secret."}, nickname="Mi")
    assert told(persona, "Mi?") == ["Secret."]
    assert told(persona, "Mira?") == []


def test_the_names_of_speakers_are_found() -> None:
    assert is_told({"keys": ["ann"]}, "Ann: hello")


def test_notes_in_messages_call_nothing() -> None:
    assert not is_told({}, "{{// storm}} {{comment: storm}} {{hidden_key:storm}}")
    assert is_told({}, "{{random:storm,calm}}")


def test_scan_depth() -> None:
    said = ("storm", "b", "c", "d")
    assert is_told({}, *said)
    assert not is_told({}, *said, "e")
    assert is_told({"scan_depth": 5}, *said, "e")
    assert not is_told({"scan_depth": 3}, *said)
    assert not is_told({"scan_depth": 0}, "storm")
    assert is_told({"scan_depth": 0, "constant": True}, "calm")


def test_the_books_scan_depth() -> None:
    for depth, expected in ((0, []), (1, []), (2, ["Secret."])):
        persona = with_lore({"keys": ["storm"], "content": "Secret."}, book={"scan_depth": depth})
        assert told(persona, "storm", "b") == expected
    shallow = with_lore({"keys": ["storm"], "content": "Secret.", "scan_depth": 2}, book={"scan_depth": 0})
    assert told(shallow, "storm", "b") == ["Secret."]


def test_the_persona_own_words_call_lore_too() -> None:
    assert is_told({}, "a", "A storm comes.", "b")


def test_constant_and_enabled() -> None:
    assert is_told({"keys": [], "constant": True}, "calm")
    assert is_told({"constant": True, "secondary_keys": ["never said"]}, "calm")
    assert not is_told({"constant": True, "enabled": False}, "storm")
    assert not is_told({"enabled": False}, "storm")
    assert not is_told({"enabled": False, **decorated("@@activate")}, "storm")


def test_each_text_once() -> None:
    persona = with_lore(
        {"keys": ["a"], "content": "Same.", "order": 2, "name": "second"},
        {"keys": ["a"], "content": "@@depth 1\nSame.", "order": 1, "name": "first"},
    )
    assert only(persona, "a a a").name == "first"


def test_the_order() -> None:
    persona = with_lore(
        *({"content": f"{order} {n}.", "constant": True, "order": order} for n, order in enumerate((3, -1, 3, 0)))
    )
    assert told(persona, "x") == ["-1 1.", "0 3.", "3 0.", "3 2."]


def test_reasons_say_which_key_and_where() -> None:
    persona = with_lore({"keys": ["calm", "the Storm"], "content": "S."})
    assert only(persona, "the storm").reason == 'key "the Storm" in the last message'
    assert only(persona, "the storm", "x", "y").reason == 'key "the Storm" 3 messages ago'
    assert only(with_lore({"content": "S.", "constant": True}), "x").reason == "always"


def test_names_for_people_are_one_line() -> None:
    for entry, name in (
        ({"name": "The\nstorm\x1b[31m"}, "The storm [31m"),
        ({"keys": ["a\u202eb"], "constant": True}, "a b"),
        ({"constant": True}, "#1"),
        ({"name": "n" * 500, "constant": True}, "n" * 60),
    ):
        persona = with_lore(
            {"keys": ["storm"], "content": "S.", **entry} if "keys" not in entry else {"content": "S.", **entry}
        )
        shown = only(with_lore({"content": "S.", **entry}), "x") if name == "#1" else only(persona, "storm")
        assert shown.name == name


def test_a_slow_pattern_is_given_up_once_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    persona = with_lore(
        {"keys": ["(b+)+$", "(b+)+c$"], "regex": True, "content": "Slow."}, {"keys": ["storm"], "content": "Fast."}
    )
    said = "storm " + "b" * 5_000 + "!"
    assert told(persona, said) == ["Fast."]
    began = time.process_time()
    assert told(persona, "bb", said + "!", "bb") == ["Fast."]
    assert time.process_time() - began < lore_keys.MAX_PATTERN_S
    assert len(caplog.records) == 1
    assert "b+" not in caplog.text


def test_a_pattern_is_not_given_up_for_the_time_that_others_took(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    persona = with_lore({"keys": ["(u+)+$"], "regex": True, "content": "Slow."})
    with monkeypatch.context() as patched:
        patched.setattr(time, "thread_time", lambda: 0.0)  # this thread had no turn at all
        assert told(persona, "u" * 5_000 + "!") == []
    assert not caplog.records
    assert told(persona, "uu") == ["Slow."]


def test_all_patterns_together_have_a_limit() -> None:
    persona = with_lore(
        *({"keys": [f"(a+)+{n}$"], "regex": True, "content": f"{n}."} for n in range(1_000)),
        {"keys": ["storm"], "content": "Fast."},
    )
    taken = []
    for sign in "!?.,;:-+":
        began = time.process_time()
        assert told(persona, "storm " + "a" * 100_000 + sign) == ["Fast."]
        taken.append(time.process_time() - began)
    assert max(taken) < lore_keys.MAX_PATTERNS_S * 5
    # By then so many were slow that the others are not tried any more.
    assert taken[-1] < lore_keys.MAX_PATTERNS_S / 2


def test_what_patience_did_not_reach_is_looked_for_again() -> None:
    slow = ({"keys": [f"(q+)+{n}$"], "regex": True, "content": f"{n}."} for n in range(7))
    persona = with_lore(*slow, {"keys": ["st.rm"], "regex": True, "content": "Late."})
    said = "storm " + "q" * 5_000 + "!"
    assert told(persona, said) == []
    assert told(persona, said) == ["Late."]


def test_patience_is_for_the_newest_first() -> None:
    slow = ({"keys": [f"(t+)+{n}$"], "regex": True, "content": f"{n}."} for n in range(7))
    persona = with_lore({"keys": ["st.rm"], "regex": True, "content": "New."}, *slow)
    assert told(persona, "t" * 5_000 + "!", "ok", "storm") == ["New."]


def test_what_patience_did_not_reach_in_lore_is_looked_for_again() -> None:
    slow = ({"keys": [f"(r+)+{n}$"], "regex": True, "content": f"{n}."} for n in range(6))
    persona = with_lore(
        {"constant": True, "content": "Calm storm."},
        *slow,
        {"keys": ["c.lm"], "regex": True, "content": "Late."},
        book={"recursive": True},
    )
    said = "r" * 5_000 + "!"
    assert told(persona, said) == ["Calm storm."]
    assert told(persona, said) == ["Calm storm.", "Late."]


@pytest.mark.parametrize(("spelling", "limit"), [("word{}", "MAX_KEYS"), ("{{{{char}}}}{}", "MAX_KEYS_WITH_MACROS")])
def test_keys_beyond_all_measure_are_never_found(spelling: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lore_keys, limit, 3)
    persona = with_lore(*({"keys": [spelling.format(n)], "content": f"{n}."} for n in range(5)))
    assert told(persona, "mira3 word3 mira2 word2") == ["2."]


def test_many_keys_are_found_in_bounded_time() -> None:
    def keys(number: int) -> list[str]:
        return ["a " * (number % 490) + "b", "a " * (number % 490) + "a"]

    persona = with_lore(*({"keys": keys(n), "content": f"{n}.", "whole_words": n % 2} for n in range(5_000)))
    told(persona, "calm")
    began = time.process_time()
    told(persona, "a " * 50_000)
    told(persona, "xa ax " * 20_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("taken_s", [MAX_PATTERNS_S, MAX_PATTERNS_S / 4])
def test_patterns_that_use_up_every_scan_are_left_out(taken_s: float, caplog: pytest.LogCaptureFixture) -> None:
    index = KeyIndex([Spelling("a+", is_regex=True)])
    names = MacroContext("", "")
    assert index.found_in("a", names, Patience())
    for number in range(MAX_SCANS_OVER + 1):
        patience = Patience()
        index.found_in(f"{number}", names, patience)
        patience.left_s = MAX_PATTERNS_S - taken_s
    is_too_slow = taken_s == MAX_PATTERNS_S
    assert bool(index.found_in("b a", names, Patience())) is not is_too_slow
    assert ("take too long" in caplog.text) is is_too_slow


SIGNS = st.text(alphabet="ab Aß_雨!\n\u0301.", max_size=12)


@settings(deadline=None)
@example(["_!ß\u0301"], "_!ß\u0301")
@given(st.lists(SIGNS.filter(str.strip), min_size=1, max_size=6), SIGNS)
def test_the_index_finds_what_a_plain_search_does(keys: list[str], text: str) -> None:
    for has_whole_words in (True, False):
        index = KeyIndex([Spelling(key, has_whole_words=has_whole_words) for key in keys])
        found = index.found_in(text, MacroContext("", ""), Patience())
        spaced = " ".join(fold(text).split())
        assert found == {
            number
            for number, key in enumerate(keys)
            if (has_any(fold(text), (key,)) if has_whole_words else " ".join(fold(key).split()) in spaced)
        }
