"""Where long texts are cut: nothing lost, nothing doubled, nothing torn apart."""

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.splitting import MIN_LIMIT, Piece, is_grapheme_border, split_text


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def bare(text: str) -> str:
    """The words alone: no formatting, and no numbers of lists."""
    return re.sub(r"[\s*_~|`>#\d.)-]", "", text)


words = st.text("abc .!\n,。你好👍🏽é`~-\u0301\u200d🇩🇪", max_size=12)
fences = st.sampled_from(["\n```python\n", "\n```\n", "\n~~~\n", "\n    indented\n", "\n\n", "x" * 150, "字" * 90])
marks = st.sampled_from(
    ["*", "**", "***bold ", "_", "__", "~~", "||", "`", "``", "\n> ", "\n>>> ", "\n# ", "\n1. ", "\n- ", "\\*",
     " word ", "[a link](https://a.example/b_c)", " <:wave:123> ", "<t:1700000000:R>", "https://a.example/(x)?y=_z_ "]
)  # fmt: skip
texts = st.lists(st.one_of(words, fences, marks, st.text(max_size=8)), max_size=60).map("".join)
limits = st.integers(MIN_LIMIT, 300)


@given(texts, limits, st.sampled_from([len, utf16]))
@example("```python\n" + "x = 1\n" * 100 + "```\nafter", MIN_LIMIT, len)
def test_pieces_show_all_of_the_text_once(text: str, limit: int, measure) -> None:
    pieces = split_text(text, limit=limit, measure=measure)
    position = 0
    for piece in pieces:
        assert text[position : piece.start].isspace() or position == piece.start, "only whitespace is left out"
        assert piece.start < piece.end
        assert bare(text[piece.start : piece.end]) in bare(piece.text), "a piece shows its part"
        assert len(squeezed(piece.text)) - len(squeezed(text[piece.start : piece.end])) <= 42, (
            "and only what is opened and closed again beside it"
        )
        assert measure(piece.text) <= limit
        assert piece.text.strip()
        position = piece.end
    assert not text[position:].strip()


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(texts, limits)
def test_a_growing_text_keeps_its_cuts(text: str, limit: int) -> None:
    whole = split_text(text, limit=limit)
    for length in range(0, len(text), 37):
        growing = split_text(text[:length], limit=limit)
        for early, late in zip(growing[:-1], whole, strict=False):
            assert early.start == late.start
            # A fence that ends just at the cut is seen only when it has come.
            assert text[min(early.end, late.end) : max(early.end, late.end)].strip(" \r\n`~") == ""


@given(st.text(st.sampled_from(["a", "\u0301", "👍", "🏽", "🇩", "🇪", "\u200d", "한", "字"]), min_size=MIN_LIMIT * 3))
def test_characters_stay_whole(text: str) -> None:
    for piece in split_text(text, limit=MIN_LIMIT, measure=utf16):
        run = text[max(0, piece.end - 64) : piece.end]
        has_border = any(is_grapheme_border(text, piece.end - offset) for offset in range(min(64, len(run))))
        assert is_grapheme_border(text, piece.end) or not has_border


@pytest.mark.parametrize(
    "whole",
    [
        "e\u0301",
        "👍🏽",
        "🇩🇪",
        "👩\u200d👩\u200d👧",
        "1\ufe0f\u20e3",
        "क्षि",
        "\u1112\u1161\u11ab",
        "한\u11ab",
        "\r\n",
        "🏴\U000e0067\U000e007f",
    ],
)
def test_what_people_see_as_one_character_has_no_border(whole: str) -> None:
    text = f"a{whole}b"
    assert [is_grapheme_border(text, position) for position in range(2, len(whole) + 1)] == [False] * (len(whole) - 1)
    assert is_grapheme_border(text, 1)
    assert is_grapheme_border(text, len(whole) + 1)


def test_flags_part_between_pairs() -> None:
    assert is_grapheme_border("🇩🇪🇫🇷", 2)
    assert not is_grapheme_border("🇩🇪🇫🇷", 3)


def test_short_text_is_one_exact_piece() -> None:
    assert split_text("  Hello,\n\n  you.  ", limit=MIN_LIMIT) == [Piece("Hello,\n\n  you.", 2, 16)]


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
def test_nothing_to_say_is_no_piece(text: str) -> None:
    assert split_text(text, limit=MIN_LIMIT) == []


def test_a_limit_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="128"):
        split_text("a", limit=5)


@pytest.mark.parametrize(
    ("border", "first_ends", "second_begins"),
    [
        ("One here.\n\nTwo and then, more\nand so. On", "One here.", "Two"),
        ("One here, so it is\nTwo. And then", "One here, so it is", "Two"),
        ("One is here. Two, and then", "One is here.", "Two"),
        ("他来了。然后，走", "他来了。", "然后"),
        ("他说：“来。”然后，走", "他说：“来。”", "然后"),
        ("One is here, two and then", "One is here,", "two"),
    ],
)
def test_the_best_border_wins(border: str, first_ends: str, second_begins: str) -> None:
    text = "a " * 40 + border + " z" * 60
    first, second, *_ = split_text(text, limit=MIN_LIMIT)
    assert first.text.endswith(first_ends)
    assert second.text.startswith(second_begins)


def test_a_border_far_in_front_does_not_make_tiny_pieces() -> None:
    first, *_ = split_text("Hi.\n\n" + "word " * 100, limit=MIN_LIMIT)
    assert len(first.text) > MIN_LIMIT // 2


def test_a_number_is_not_the_end_of_a_sentence() -> None:
    first, *_ = split_text("a " * 50 + "about 3.14159265 is " + "b " * 50, limit=MIN_LIMIT)
    assert not first.text.endswith("3.")


def test_code_is_closed_and_opened_again_with_its_language() -> None:
    code = "\n".join(f"    line_{number} = {number}  # a, b. c" for number in range(40))
    pieces = split_text(f"Look:\n```python\n{code}\n```\nDone.", limit=300)
    assert len(pieces) > 3
    shown = []
    for piece in pieces:
        assert piece.text.count("```") % 2 == 0
        assert "```python\n```" not in piece.text
        shown += re.findall(r"^ {4}line_.*$", piece.text, re.MULTILINE)
    assert all(piece.text.startswith("```python\n    line_") for piece in pieces[1:-1])
    assert "\n".join(shown) == code
    assert pieces[-1].text.endswith("```\nDone.")


def test_a_fence_that_closes_at_the_cut_leaves_no_empty_block() -> None:
    for length in range(90, 140):
        pieces = split_text(f"```\n{'x' * 60}\n{'y' * (length - 60)}\n```\nAnd more words follow.", limit=MIN_LIMIT)
        assert not [piece for piece in pieces if re.search(r"^```\n+```$", piece.text, re.MULTILINE)], length
        assert all(piece.text.count("```") % 2 == 0 for piece in pieces)


def test_a_block_that_does_not_fit_begins_in_the_next_piece() -> None:
    pieces = split_text("word " * 20 + "\n```python\n" + "x" * 200 + "\n```", limit=MIN_LIMIT)
    assert "```" not in pieces[0].text
    assert all(piece.text.startswith("```python\nx") for piece in pieces[1:])


def test_long_codes_of_many_pieces_are_fast() -> None:
    assert len(split_text("some. words, and\n" * 6000, limit=2000)) > 50


@pytest.mark.parametrize("babble", [".", "!?", "…", ".)", "'."])
def test_endless_stops_do_not_hold_up_everybody(babble: str) -> None:
    started = time.perf_counter()
    split_text(babble * 20_000, limit=10_000)
    assert time.perf_counter() - started < 2


# --- formatting goes on


LONG_WORDS = " ".join(f"word{number}" for number in range(60))


@pytest.mark.parametrize("mark", ["*", "**", "_", "__", "~~", "||", "`", "``"])
def test_formatting_that_is_open_at_a_cut_is_closed_and_opened_again(mark: str) -> None:
    pieces = split_text(f"Before {mark}{LONG_WORDS}{mark} after.", limit=MIN_LIMIT)
    assert len(pieces) > 3
    assert all(piece.text.endswith(mark) for piece in pieces[:-1])
    assert all(piece.text.startswith(f"{mark}word") for piece in pieces[1:])
    assert pieces[-1].text.endswith(f"{mark} after.")


def test_several_kinds_are_closed_in_the_order_that_fits() -> None:
    pieces = split_text(f"***Bold, ~~{LONG_WORDS}~~***", limit=MIN_LIMIT)
    assert all(piece.text.endswith("~~***") for piece in pieces)
    assert all(piece.text.startswith("***~~word") for piece in pieces[1:])


def test_what_is_closed_before_the_cut_stays_closed() -> None:
    pieces = split_text(f"**Bold** and *this* too. {LONG_WORDS}", limit=MIN_LIMIT)
    assert "*" not in "".join(piece.text for piece in pieces[1:])


@pytest.mark.parametrize(
    "text", ["5 * 3 and *what {}", "snake_case and {} other_case", "\\*no {} bold\\*", "* one\n* two {}"]
)
def test_what_is_no_formatting_is_left_alone(text: str) -> None:
    whole = text.format(LONG_WORDS)
    for piece in split_text(whole, limit=MIN_LIMIT):
        assert piece.text == whole[piece.start : piece.end]


def test_marks_in_code_and_addresses_are_none() -> None:
    whole = f"`a ** b` https://a.example/__x <:__a:1> {LONG_WORDS} c ** d __"
    for piece in split_text(whole, limit=MIN_LIMIT):
        assert piece.text == whole[piece.start : piece.end]


def test_what_is_opened_and_closed_again_has_room() -> None:
    for piece in split_text(f"***~~||{'字' * 600}||~~***", limit=MIN_LIMIT):
        assert MIN_LIMIT - 50 < len(piece.text) <= MIN_LIMIT or piece.end > 600
        assert piece.text.startswith("***~~||字")
        assert piece.text.endswith("字||~~***")


def test_nothing_is_formatted_across_a_block_of_code() -> None:
    whole = f"An *open one {LONG_WORDS}\n```\nx = 1\n```\nand an end* of none."
    assert all(piece.text == whole[piece.start : piece.end] for piece in split_text(whole, limit=MIN_LIMIT))


def test_a_secret_stays_hidden_before_its_end_has_come() -> None:
    first, *_ = split_text(f"It was ||{LONG_WORDS}", limit=MIN_LIMIT)
    assert first.text.count("||") == 2


def test_the_mark_that_comes_late_dresses_the_piece_that_is_there() -> None:
    growing, whole = f"So **{LONG_WORDS}", f"So **{LONG_WORDS}** it is."
    early, late = split_text(growing, limit=MIN_LIMIT), split_text(whole, limit=MIN_LIMIT)
    assert early[0].text + "**" == late[0].text
    assert [piece.start for piece in early] == [piece.start for piece in late]


@pytest.mark.parametrize("mark", ["> ", "# ", "### ", "-# ", "> > "])
def test_a_line_goes_on_as_what_it_is(mark: str) -> None:
    pieces = split_text(f"Hello.\n{mark}{LONG_WORDS}\nBye.", limit=MIN_LIMIT)
    assert all(piece.text.startswith(f"{mark}word") for piece in pieces[1:])
    assert pieces[-1].text.endswith("\nBye.")


def test_a_line_of_its_own_is_quoted_once() -> None:
    quote = "\n".join(f"> This is line {number} of it." for number in range(20))
    for piece in split_text(quote, limit=MIN_LIMIT):
        assert piece.text == quote[piece.start : piece.end]


def test_a_quote_without_end_goes_on_to_the_end() -> None:
    pieces = split_text(f">>> {LONG_WORDS}\nAnd **{LONG_WORDS}**", limit=MIN_LIMIT)
    assert all(piece.text.startswith(">>> ") for piece in pieces)


def test_formatting_goes_on_behind_the_mark_of_a_line() -> None:
    items = "\n".join(f"- This is item {number} of it all" for number in range(12))
    pieces = split_text(f"**{items}**", limit=MIN_LIMIT)
    assert all(piece.text.startswith("- **This") and piece.text.endswith("**") for piece in pieces[1:])


@pytest.mark.parametrize("end", [".", ")"])
def test_a_list_that_counts_by_itself_goes_on_counting(end: str) -> None:
    items = "\n".join(f"1{end} This is item {number} of it\n   and more" for number in range(1, 13))
    for piece in split_text(f"Look:\n{items}", limit=MIN_LIMIT)[1:]:
        typed, meant = re.match(rf"(\d+)\{end} This is item (\d+)", piece.text).groups()
        assert typed == meant


def test_numbers_that_were_given_stay() -> None:
    items = "\n".join(f"{number}. This is item {number} of it" for number in range(1, 13))
    for piece in split_text(items, limit=MIN_LIMIT):
        assert piece.text == items[piece.start : piece.end]


WHOLES = [
    "[a link of words](https://a.example/path_(x))",
    "https://a.example/path?query=some,thing;else&more=1",
    "<:a_custom_emoji:123456789012345678>",
    "<a:b:123>",
    "<t:1700000000:R>",
    "<@123456789012345678>",
]


@pytest.mark.parametrize("filler", ["字", "word "])
@given(st.integers(0, 300), st.sampled_from(WHOLES), st.integers(0, 60))
def test_what_belongs_together_is_not_cut(filler: str, position: int, whole: str, overlap: int) -> None:
    text = (filler * 300)[:position] + whole + (filler * 300)[overlap:300]
    pieces = split_text(text, limit=MIN_LIMIT)
    assert [piece for piece in pieces if whole in piece.text]


def test_an_address_that_fits_nowhere_is_cut_all_the_same() -> None:
    pieces = split_text("https://a.example/" + "x" * 500, limit=MIN_LIMIT)
    assert "".join(piece.text for piece in pieces) == "https://a.example/" + "x" * 500


@given(texts)
def test_no_word_is_lost(text: str) -> None:
    if not re.search(r"^ {0,3}(```|~~~)", text, re.MULTILINE):
        shown = "".join(piece.text for piece in split_text(text, limit=MIN_LIMIT))
        assert bare(shown) == bare(text)


@pytest.mark.parametrize(
    "babble", ["*", "**a", "`", "` ``", "||", "[", "[a](", "<", "_a_ ", "> ", "1. a\n", "https://a", "(a"]
)
def test_endless_marks_do_not_hold_up_everybody(babble: str) -> None:
    started = time.perf_counter()
    split_text(babble * 10_000, limit=2000)
    assert time.perf_counter() - started < 2
