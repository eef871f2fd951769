"""The decorators of character cards V3: what they do, and which of several counts."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.personas.decorators import Decorators, split_decorators
from engine.lore import LoreEntry
from tests.bot.personas.lore_moments import decorated, is_told, only, report, told, with_lore


def said(*lines: str) -> Decorators:
    return split_decorators("\n".join([*lines, "Text."])).decorators


def test_decorators_are_taken_off_with_the_lines_around_them() -> None:
    content = "\n@@depth 3\r\n\n  @@role user\n\n\nSome lore.\n@@depth 9\nMore.\n"
    split = split_decorators(content)
    assert split.text == "Some lore.\n@@depth 9\nMore."
    assert split.decorators == Decorators(depth=3, role="user")


def test_a_text_without_decorators() -> None:
    assert split_decorators("  Lore @@depth 3 ").text == "Lore @@depth 3"
    assert split_decorators("Lore").decorators == Decorators()


def test_the_first_of_a_name_counts() -> None:
    assert said("@@depth 3", "@@depth 5").depth == 3


@pytest.mark.parametrize("line", ["@@unknown 3", "@@depth", "@@depth many", "@@depth nan", "@@depth 1.5", "@@role god"])
def test_what_is_unknown_or_wrong_says_nothing(line: str) -> None:
    assert said(line) == Decorators()
    assert said(line, "@@scan_depth 2") == Decorators(scan_depth=2)


@pytest.mark.parametrize("line", ["@@risu_only 4", "@@depth x", "@@instruct_depth 5", "@@reverse_instruct_depth 5"])
def test_a_fallback_stands_in(line: str) -> None:
    assert said(line, "@@@scan_depth 2") == Decorators(scan_depth=2)


def test_a_fallback_of_what_counts_says_nothing() -> None:
    assert said("@@depth 3", "@@@scan_depth 2") == Decorators(depth=3)
    assert said("@@@scan_depth 2", "@@@depth 2") == Decorators()


@pytest.mark.parametrize("length", [1, 5, 40])
def test_chains_of_fallbacks(length: int) -> None:
    chain = ["@@unknown_0 1", *(f"@@@unknown_{number} 1" for number in range(1, length))]
    assert said(*chain, "@@@scan_depth 2", "@@@scan_depth 3", "@@role user") == Decorators(scan_depth=2, role="user")


def test_numbers_and_flags() -> None:
    assert said("@@depth -3").depth == 0
    assert said("@@depth 4.0").depth == 4
    assert said("@@scan_depth -1").scan_depth is None
    assert said("@@activate").activate
    assert said("@@activate true").activate
    assert not said("@@activate false").activate
    assert said("@@activate_only_every 0").activate_only_every is None


def test_activate_and_dont_activate() -> None:
    assert is_told(decorated("@@activate"), "calm")
    assert is_told(decorated("@@dont_activate", "@@activate"), "calm")
    assert not is_told(decorated("@@dont_activate"), "storm")
    assert not is_told({**decorated("@@dont_activate"), "constant": True}, "storm")
    assert is_told({**decorated("@@activate"), "probability": 0, "delay": 99}, "calm")


def test_activate_only_after() -> None:
    entry = decorated("@@activate_only_after 2")
    assert not is_told(entry, "a", "b", "storm")
    assert is_told(entry, "a", "b", "c", "d", "storm")
    assert is_told(entry, "storm", num_before=9, num_replies_before=2)
    assert not is_told(entry, "storm", num_before=9, num_replies_before=1)
    assert is_told(entry, "storm", num_before=4)
    assert not is_told({**entry, "constant": True}, "storm")


def test_activate_only_every() -> None:
    entry = decorated("@@activate_only_every 3")
    due = [number for number in range(8) if is_told(entry, "storm", num_before=99, num_replies_before=number)]
    assert due == [0, 3, 6]


def test_is_greeting() -> None:
    entry = decorated("@@is_greeting 1")
    assert is_told(entry, "storm", greeting_index=1)
    assert not is_told(entry, "storm", greeting_index=0)
    assert is_told(entry, "storm")
    first = decorated("@@is_greeting 0")
    assert is_told(first, "storm", greeting_index=0)
    assert not is_told(first, "storm", greeting_index=1)


def test_is_user_icon() -> None:
    entry = decorated("@@is_user_icon Knight")
    assert is_told(entry, "storm", user_icon="Knight")
    assert not is_told(entry, "storm", user_icon="Maid")
    assert is_told(entry, "storm")


def test_scan_depth() -> None:
    assert is_told(decorated("@@scan_depth 5"), "storm", "b", "c", "d", "e")
    assert not is_told({**decorated("@@scan_depth 1"), "scan_depth": 9}, "storm", "b")
    assert is_told(decorated("@@instruct_scan_depth 1"), "storm", "b")
    assert not is_told(decorated("@@scan_depth 0"), "storm")


def test_additional_keys() -> None:
    entry = decorated("@@additional_keys rain, wind")
    assert is_told(entry, "storm and wind")
    assert not is_told(entry, "storm")
    assert not is_told(entry, "wind")
    assert not is_told(entry, "storm and WINDS")
    assert not is_told({**entry, "constant": True}, "storm")


def test_additional_keys_of_patterns_are_more_patterns() -> None:
    entry = {**decorated("@@additional_keys r[ae]in"), "regex": True}
    assert is_told(entry, "storm")
    assert is_told(entry, "rein")
    assert not is_told(entry, "r[ae]in")


def test_exclude_keys() -> None:
    entry = decorated("@@exclude_keys rain, wind")
    assert is_told(entry, "storm")
    assert not is_told(entry, "storm and WIND")
    assert is_told({**entry, "case_sensitive": True}, "storm and WIND")
    assert is_told({**entry, "regex": True}, "storm and wind")
    assert not is_told({**entry, "constant": True}, "wind")


def test_depth() -> None:
    entry = only(with_lore({"constant": True, "position": "before_char", **decorated("@@depth 2")}), "x")
    assert (entry.position, entry.depth, entry.text) == ("at_depth", 2, "Secret.")


def test_reverse_depth_counts_from_the_beginning() -> None:
    persona = with_lore({"constant": True, **decorated("@@reverse_depth 2")})
    assert (only(persona, "a", "b", "c").position, only(persona, "a", "b", "c").depth) == ("at_depth", 1)
    assert only(persona, "a", "b", "c", num_before=7).depth == 8
    assert only(persona, "a").depth == 0
    both = with_lore({"constant": True, **decorated("@@reverse_depth 2", "@@depth 5")})
    assert only(both, "a", "b", "c").depth == 5


@pytest.mark.parametrize("line", ["@@instruct_depth 2", "@@reverse_instruct_depth 2"])
def test_what_counts_tokens_says_nothing_in_a_chat(line: str) -> None:
    plain = LoreEntry.model_fields["position"].default
    assert only(with_lore({"constant": True, **decorated(line)}), "x").position == plain


def test_role() -> None:
    assert only(with_lore({"constant": True, **decorated("@@role assistant")}), "x").role == "assistant"
    assert only(with_lore({"constant": True, "role": "user", "content": "Secret."}), "x").role == "user"


@pytest.mark.parametrize("position", ["before_desc", "after_desc", "personality", "scenario", "before_examples"])
def test_position(position: str) -> None:
    entry = {"constant": True, **decorated("@@depth 3", f"@@position {position}")}
    assert only(with_lore(entry, traits=["kind"], scenario="Rain."), "x").position == position


def test_a_position_that_is_not_there_gives_way() -> None:
    entry = {"constant": True, **decorated("@@position scenario", "@@@position after_desc")}
    assert only(with_lore(entry), "x").position == "after_desc"
    assert only(with_lore(entry, scenario="Rain."), "x").position == "scenario"
    for line in ("@@position personality", "@@position nowhere", "@@position at_depth"):
        unknown = {"constant": True, **decorated("@@depth 3", line)}
        assert (only(with_lore(unknown), "x").position, only(with_lore(unknown), "x").depth) == ("at_depth", 3)


def test_ignore_on_max_context_goes_first() -> None:
    persona = with_lore(
        {"constant": True, "content": "one two", "priority": 1},
        {"constant": True, "content": "@@ignore_on_max_context\nthree four", "priority": 999},
    )
    assert told(persona, "x", max_tokens=4) == ["one two", "three four"]
    assert told(persona, "x", max_tokens=3) == ["one two"]


def test_disable_ui_prompt() -> None:
    persona = with_lore({"keys": ["storm"], **decorated("@@disable_ui_prompt system_prompt")})
    assert report(persona, "storm").disabled_prompts == {"system_prompt"}
    assert report(persona, "calm").disabled_prompts == frozenset()
    unknown = with_lore({"keys": ["storm"], **decorated("@@disable_ui_prompt other")})
    assert report(unknown, "storm").disabled_prompts == frozenset()


def test_nothing_but_decorators_tells_nothing() -> None:
    persona = with_lore({"content": "@@activate\n@@disable_ui_prompt system_prompt"})
    assert report(persona, "x").told == ()
    assert report(persona, "x").disabled_prompts == {"system_prompt"}


def test_endless_decorators_take_linear_time() -> None:
    began = time.process_time()
    split_decorators("@@depth x\n" * 10_000)
    split_decorators("@@a\n" + "\n" * 100_000)
    assert time.process_time() - began < 1


@settings(deadline=None)
@given(st.text(alphabet="@ \n\rdepth_role3-x", max_size=60))
def test_any_text_can_be_taken_apart(content: str) -> None:
    text = split_decorators(content).text
    assert text in content.replace("\r\n", "\n").replace("\r", "\n") or text in content
    assert not text.startswith("@@") or not content.strip().startswith("@@")
