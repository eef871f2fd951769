import re
import time
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.personas.macros import MAX_DICE, MAX_DICE_A_TEXT, MAX_NESTING, MacroContext, fill, seen_by_lore, without_asides

CONTEXT = MacroContext("Mira", "Ann", seed="s", conversation="c")


def filled(text: str, **changes: object) -> str:
    return fill(text, MacroContext(**{"char": "Mira", "user": "Ann", "seed": "s", "conversation": "c", **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{char}} and {{user}}", "Mira and Ann"),
        ("{{Char}} {{ USER }} <BOT> <Char> <user>", "Mira Ann Mira Mira Ann"),
        ("{{{char}}} {{{{user}}}}", "{Mira} {{Ann}}"),
        ("{{char}", "{{char}"),
        ("}} {{char}} {{", "}} Mira {{"),
        ("{{ {{char}}", "{{ Mira"),
        ("{{unknown}} {{getvar::x}} {{}} {{char x}}", "{{unknown}} {{getvar::x}} {{}} {{char x}}"),
        ("{{unknown {{user}}}}", "{{unknown Ann}}"),
        ("<b>{{user}}</b> <bots>", "<b>Ann</b> <bots>"),
        ("a{{// a note}}b{{//}}c", "abc"),
        ("a{{comment: for {{user}} }}b", "ab"),
        ("{{comment}}", "{{comment}}"),
        ("a{{hidden_key:dragon}}b", "ab"),
        ("{{reverse:Hello}} {{reverse:{{user}}}}", "olleH nnA"),
        ("{{reverse:e\u0301a}}", "ae\u0301"),
        ("a{{newline}}b{{noop}}", "a\nb"),
        ("a\n\n{{trim}}\r\n b", "a b"),
        ("\n{{trim}}{{user}}\n{{trim}}", "Ann"),
        ("{{original}}", ""),
        ("{{time}} {{date}} {{weekday}}", "{{time}} {{date}} {{weekday}}"),
    ],
)
def test_what_macros_become(text: str, expected: str) -> None:
    assert filled(text) == expected


def test_values_are_not_read_for_macros_again() -> None:
    assert filled("{{user}} {{char}}", user="{{char}}", char="<user>") == "{{char}} <user>"
    assert filled("{{original}}", original="{{char}}") == "{{char}}"
    assert filled("{{random:{{user}},{{user}}}}", user="a,b::{{char}}") == "a,b::{{char}}"


def test_the_original_stands_once() -> None:
    assert filled("{{original}} Be kind. {{original}}", original="Stay.") == "Stay. Be kind. "


def test_the_clock() -> None:
    now = datetime(2026, 11, 22, 7, 5)
    assert filled("{{weekday}} {{date}} {{isodate}}", now=now) == "Sunday 2026-11-22 2026-11-22"
    assert filled("{{time}} {{isotime}}", now=now) == "07:05 07:05"


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("{{random:a,b, c}}", {"a", "b", "c"}),
        ("{{random:a\\,b,c}}", {"a,b", "c"}),
        ("{{random::a,1::b}}", {"a,1", "b"}),
        ("{{random::a,b}}", {"a", "b"}),
        ("{{pick:a,b}}", {"a", "b"}),
        ("{{pick::a::b}}", {"a", "b"}),
        ("{{random:{{user}},{{char}}}}", {"Ann", "Mira"}),
        ("{{random::a::b{{user}}c}}", {"a", "bAnnc"}),
        ("{{random:only}}", {"only"}),
        ("{{random:}}", {""}),
    ],
)
def test_choices(text: str, choices: set[str]) -> None:
    assert {filled(text, seed=str(n), conversation=str(n)) for n in range(60)} == choices


def test_chance_comes_from_the_seed_alone() -> None:
    text = "{{random:a,b,c,d,e,f}} {{roll:1000}}"
    assert filled(text) == filled(text)
    assert len({filled(text, seed=str(n)) for n in range(20)}) > 10


def test_a_pick_stays_through_a_conversation() -> None:
    text = "{{pick:a,b,c,d,e,f,g,h}}"
    assert len({filled(text, seed=str(n)) for n in range(20)}) == 1
    assert len({filled(text, conversation=str(n)) for n in range(20)}) > 3
    assert len({filled(f"{text} {n}")[0] for n in range(20)}) > 3  # but another text is another place


def test_several_in_one_text_are_drawn_apart() -> None:
    assert len(set(filled("{{random:1,2,3,4}} " * 40).split())) == 4


@pytest.mark.parametrize(
    ("formula", "least", "most"),
    [("d20", 1, 20), ("D6", 1, 6), ("6", 1, 6), ("2d6+1", 3, 13), ("1d4 - 3", -2, 1), (" d6 ", 1, 6)],
)
def test_rolls(formula: str, least: int, most: int) -> None:
    rolls = {int(filled(f"{{{{roll:{formula}}}}}", seed=str(n))) for n in range(400)}
    assert least <= min(rolls) <= max(rolls) <= most
    assert {least, most} <= rolls or most - least > 9


def test_a_roll_without_a_colon() -> None:
    assert filled("{{roll d1}}") == "1"


def test_as_many_dice_as_there_may_be() -> None:
    assert filled(f"{{{{roll:{MAX_DICE}d1}}}}") == str(MAX_DICE)
    num_rolls = MAX_DICE_A_TEXT // MAX_DICE
    many = filled(f"{{{{roll:{MAX_DICE}d1}}}} " * (num_rolls + 1)).split()
    assert many == [str(MAX_DICE)] * num_rolls + [f"{{{{roll:{MAX_DICE}d1}}}}"]


@pytest.mark.parametrize("formula", ["0", "2d0", "0d6", f"{MAX_DICE + 1}d6", "9999999", "d٣", "x", "1d6*2", ""])
def test_impossible_dice_stay_as_they_are(formula: str) -> None:
    assert filled(f"{{{{roll:{formula}}}}}") == f"{{{{roll:{formula}}}}}"


def test_nesting_has_an_end() -> None:
    deepest = "{{reverse:" * MAX_NESTING + "ab" + "}}" * MAX_NESTING
    assert filled(deepest) == "ab"
    deeper = "{{reverse:" * (MAX_NESTING + 2) + "ab" + "}}" * (MAX_NESTING + 2)
    assert filled(deeper) == "{{reverse:{{reverse:ab}}}}"


def test_lore_is_called_by_hidden_keys_and_not_by_notes() -> None:
    text = "{{char}} {{// dragon}}{{comment: elf}}{{hidden_key:orc}} {{random:a,b}}"
    assert seen_by_lore(text, CONTEXT).split() == ["Mira", "orc", "{{random:a,b}}"]


def test_what_people_said_is_scanned_without_asides() -> None:
    assert without_asides("{{user}} {{// dragon}}{{comment: elf}}{{hidden_key:orc}}<bot>") == "{{user}} <bot>"
    assert without_asides("{{comment}} {{hidden_key}} {{x:y}}") == "{{comment}} {{hidden_key}} {{x:y}}"


def test_what_is_not_there_costs_nothing() -> None:
    text = "plain text"
    assert fill(text, CONTEXT) is text


@pytest.mark.parametrize(
    "part",
    [
        "{{",
        "}}",
        "{{char}}",
        "{{random:",
        "{{reverse:",
        "{{// ",
        "{{trim}}\n",
        "{{roll:100d6}}",
        "{",
        "{{x}}}}",
        "<bot>",
    ],
)
def test_hostile_texts_take_linear_time(part: str) -> None:
    text = part * (100_000 // len(part))
    began = time.process_time()
    fill(text, CONTEXT)
    fill(text + "}}" * 30_000, CONTEXT)
    assert time.process_time() - began < 1.5


@settings(deadline=None)
@given(st.text(alphabet="{}<>char:user|random,/ \n\\d6", max_size=80))
def test_any_text_is_filled_alike_twice(text: str) -> None:
    assert fill(text, CONTEXT) == fill(text, CONTEXT)


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=20))
def test_names_are_put_in_whole(text: str, name: str) -> None:
    text = re.sub(r"[{}<]", "", text)
    assert fill(text + "{{user}}", MacroContext("x", name)) == text + name
