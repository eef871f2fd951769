"""What people hear of a prompt."""

from bot.personas.context import ContextReport
from bot.personas.lorebook import LoreReport, ToldLore
from bot.personas.recall import Recalled
from bot.personas.telling import MAX_NAMED, describe_context


def entry(name: str, *, num_tokens: int = 21, reason: str = 'key "dragon" in the last message') -> ToldLore:
    return ToldLore(0, name, "Secret.", "beside_question", 4, "system", num_tokens, reason, 100, 100, False)


def test_lore_that_was_told_and_left_out_with_why_and_what_it_cost() -> None:
    lore = LoreReport((entry("Ember"), entry("bell", num_tokens=1, reason="always")), (entry("map", reason="no room"),))
    report = ContextReport(lore, (Recalled("age", "x"),), 640, 3840, num_turns_left_out=3, num_pictures_left_out=1)
    assert describe_context(report).splitlines() == [
        'Lore told: Ember (key "dragon" in the last message, 21 tokens); bell (always, 1 token).',
        "Lore left out: map (no room, 21 tokens).",
        "Recalled because you asked about it: age.",
        "No room for 3 older messages, 1 earlier picture.",
        "The prompt took about 640 of 3,840 tokens.",
    ]


def test_where_nothing_happened_there_is_little_to_say() -> None:
    assert describe_context(ContextReport(LoreReport(), num_tokens=1200)) == "The prompt took about 1,200 tokens."


def test_what_lore_says_is_not_told_and_long_lists_end() -> None:
    told = describe_context(ContextReport(LoreReport(tuple(entry(f"a\nb{number}" * 50) for number in range(99)))))
    assert "Secret" not in told
    assert f"and {99 - MAX_NAMED} more" in told
    assert len(told) < 3000
    assert len(told.splitlines()) == 2
