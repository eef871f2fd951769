"""Markdown as Telegram shows it: the right words are bold, and no word is ever lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegram import MessageEntity

from bot.adapters.telegram.client import utf16_length, utf16_slice
from bot.adapters.telegram.formatting import MAX_ENTITIES, FormattedText, format_markdown, formatted_length, plain_text
from tests.fakes.telegram.state import entity_problem

_SIGNS = ["*", "**", "***", "_", "__", "~~", "||", "|", "`", "``", "```", "~~~", "\n", "\n\n", " ", "  ", "    ", "> "]
_MORE = [
    "# ",
    "- ",
    "1. ",
    "7) ",
    "[",
    "]",
    "(",
    ")",
    "](https://e.org/",
    ")",
    "<",
    ">",
    "!",
    "\\",
    "@",
    "&amp;",
    "---",
]
_MADE = ["\n| ", " | ", " |\n", "\n|--|--|\n", "\n```py\n", "\n> ", "\n  - ", '"', "\t", "\r\n", "tg://user?id=1", "🐕"]
_WORDS = ["eins", "zwei", "drei", "Ärger", "犬", "a_b", "x"]
_texts = st.lists(st.sampled_from([*_SIGNS, *_MORE, *_MADE, *_WORDS, *_WORDS]), max_size=40).map("".join)


def shown(text: str) -> list[tuple[str, str]]:
    """What is special, as kind and words."""
    formatted = format_markdown(text)
    return [(str(e.type), utf16_slice(formatted.text, e.offset, e.offset + e.length)) for e in formatted.entities]


@pytest.mark.parametrize(
    ("text", "visible", "special"),
    [
        ("*waves* hi", "waves hi", [("italic", "waves")]),
        ("**now** __then__ _soon_", "now then soon", [("bold", "now"), ("bold", "then"), ("italic", "soon")]),
        ("~~no~~ ||secret||", "no secret", [("strikethrough", "no"), ("spoiler", "secret")]),
        ("`a*b*c` a_b_c 2 * 3", "a*b*c a_b_c 2 * 3", [("code", "a*b*c")]),
        ("🐕 **dog**", "🐕 dog", [("bold", "dog")]),
        ("***both***", "both", [("italic", "both"), ("bold", "both")]),
        ("**a `b` c**", "a b c", [("bold", "a"), ("code", "b"), ("bold", "c")]),
        ("# Title\ntext", "Title\ntext", [("bold", "Title")]),
        ("- one\n- two\n  - three", "• one\n• two\n  • three", []),
        ("- one\n-", "• one\n•", []),
        ("one\n\n1.", "one\n\n1.", []),
        ("3. three\n4. four\n\nend", "3. three\n4. four\n\nend", []),
        ("> said\n> so\n\nend", "said\nso\n\nend", [("blockquote", "said\nso")]),
        ("one\n\n---\n\ntwo", "one\n\n———\n\ntwo", []),
        ("||a **b** c||", "a b c", [("spoiler", "a b c"), ("bold", "b")]),
        ("one\ntwo\n\n\nthree", "one\ntwo\n\nthree", []),
        ("1 < 2 & <b>so</b> &amp; \\*", "1 < 2 & <b>so</b> &amp; *", []),
        ("    indented prose", "indented prose", []),
        ("Title\n===\n\nText\n---", "Title\n===\n\nText\n———", []),
        ("a || b", "a || b", []),
    ],
)
def test_markdown(text: str, visible: str, special: list[tuple[str, str]]) -> None:
    assert format_markdown(text).text == visible
    assert shown(text) == special


def test_a_code_block_keeps_its_spaces_and_says_its_language() -> None:
    formatted = format_markdown("See:\n```python title\n  if x:\n\n    y\n```\nDone.")
    assert formatted.text == "See:\n  if x:\n\n    y\nDone."
    (block,) = formatted.entities
    assert (block.type, block.language) == (MessageEntity.PRE, "python")
    assert utf16_slice(formatted.text, block.offset, block.offset + block.length) == "  if x:\n\n    y"


def test_a_table_is_drawn_with_all_of_its_cells() -> None:
    formatted = format_markdown("| dog | years |\n|---|---:|\n| Rex | 3 | more |\n| Bo | 12 |")
    assert formatted.text.split("\n") == ["dog │ years │", "──────────────────", "Rex │ 3     │ more", "Bo  │ 12    │"]
    assert [entity.type for entity in formatted.entities] == [MessageEntity.PRE]


def test_a_table_that_cannot_be_drawn_in_its_room_stays_as_it_was_written() -> None:
    text = f"|a|b|\n|-|-|\n|{'x' * 200}|1|\n|2|3|"
    assert format_markdown(text).text == text


@pytest.mark.parametrize(
    "text", ["**half", "*half", "`half", "||half", "[half", "[half](", "[half](https://x", "~~half"]
)
def test_what_is_half_written_stays_as_it_is(text: str) -> None:
    assert format_markdown(text) == FormattedText(text)


def test_an_open_code_block_is_code_already() -> None:
    assert shown("```py\nprint(") == [("pre", "print(")]


@pytest.mark.parametrize("url", ["https://e.org/@ada?a=b_c_d", "HTTP://e.org", "tg://resolve?domain=x"])
def test_links(url: str) -> None:
    formatted = format_markdown(f"[the *page*]({url})")
    assert formatted.text == "the page"
    assert formatted.entities[0] == MessageEntity(MessageEntity.TEXT_LINK, 0, 8, url=url)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "tg://user?id=1001", "file:///etc", "page.html", "data:x,y"])
def test_links_that_lead_elsewhere_are_shown_as_text(url: str) -> None:
    formatted = format_markdown(f"[press]({url})")
    assert formatted == FormattedText(f"[press]({url})")


def test_a_link_without_words_shows_where_it_leads() -> None:
    formatted = format_markdown("see [](https://e.org)")
    assert formatted.text == "see https://e.org"
    assert formatted.entities[0].url == "https://e.org"


def test_a_picture_is_a_link() -> None:
    formatted = format_markdown('![a dog](https://e.org/d.png "Rex") ![](https://e.org/e.png)')
    assert formatted.text == "a dog (Rex) https://e.org/e.png"
    assert [entity.url for entity in formatted.entities] == ["https://e.org/d.png", "https://e.org/e.png"]


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("@ada and (@bob)", "@\u2060ada and (@\u2060bob)"),
        ("**@ada**", "@\u2060ada"),
        ("mail ada@e.org", "mail ada@e.org"),
        ("`@ada`", "@ada"),
        ("```\n@ada\n```", "@ada"),
        ("https://e.org/@ada", "https://e.org/@ada"),
        ("@ alone", "@ alone"),
        # The server looks at the text alone: where a style begins or ends does not matter to it.
        ("@**ada**", "@\u2060ada"),
        ("@*a*da", "@\u2060ada"),
        ("@`ada`", "@\u2060ada"),
        ("@[ada](https://e.org)", "@\u2060ada"),
        ("||@||ada", "@\u2060ada"),
        ("@@ada", "@\u2060@\u2060ada"),
        # It takes some signs out before it looks.
        ("@\u202eada", "@\u2060\u202eada"),
        # What it takes for no address, or for its end.
        ("https://!@ada", "https://!@\u2060ada"),
        ("https://localhost/@ada", "https://localhost/@\u2060ada"),
        ('https://e.org/"@ada', 'https://e.org/"@\u2060ada'),
        ("https://e.org/«@ada", "https://e.org/«@\u2060ada"),
    ],
)
def test_nobody_is_rung(text: str, visible: str) -> None:
    assert format_markdown(text).text == visible


@pytest.mark.parametrize("num_bold", [MAX_ENTITIES - 1, MAX_ENTITIES])
def test_nobody_is_rung_by_code_that_is_one_entity_too_many(num_bold: int) -> None:
    named = format_markdown("**x** " * num_bold + "`@ada`").after("Luna")
    assert named.text.endswith("x @\u2060ada")
    assert len(named.entities) == MAX_ENTITIES


def test_a_text_of_signs_alone_is_shown_as_it_is() -> None:
    for text in ("```\n```", ">"):
        assert format_markdown(text).text == text


@pytest.mark.parametrize("text", [">" * 30 + " deep", "- " * 30 + "deep"])
def test_what_is_nested_too_deep_is_shown_as_it_is(text: str) -> None:
    assert format_markdown(text) == FormattedText(text)


def test_too_many_entities_are_left_out() -> None:
    formatted = format_markdown("**x** y " * 150)
    assert len(formatted.entities) == MAX_ENTITIES
    assert formatted.text.split() == ["x", "y"] * 150


def test_a_name_line_goes_before() -> None:
    named = format_markdown("*hi* 🐕").after("Luna 🌙")
    assert named.text == "Luna 🌙\nhi 🐕"
    assert [(e.type, e.offset, e.length) for e in named.entities] == [("bold", 0, 7), ("italic", 8, 2)]


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.replace("\u2060", ""))


@given(_texts)
def test_no_word_is_lost_and_the_server_takes_it(text: str) -> None:
    formatted = format_markdown(text)
    beside = " ".join(f"{e.url or ''} {e.language or ''}" for e in formatted.entities)
    # Behind its language, a code block's first line says nothing.
    asked = re.sub(r"(?m)^[ >\t\-*+\d.)]*(```+|~~~+)[^\n]*$", "", text)
    missing = [word for word in words(asked) if word not in f"{formatted.text} {beside}"]
    assert not missing
    assert utf16_length(formatted.text) <= formatted_length(text)
    assert not entity_problem(formatted.text, [entity.to_dict() for entity in formatted.entities])


@given(_texts, _texts)
def test_a_longer_text_is_never_counted_shorter(text: str, more: str) -> None:
    assert formatted_length(text) <= formatted_length(text + more)


@given(st.text())
def test_any_text_survives(text: str) -> None:
    formatted = format_markdown(text)
    assert utf16_length(formatted.text) <= formatted_length(text)
    assert not entity_problem(formatted.text, [entity.to_dict() for entity in formatted.entities])
    assert plain_text(text).text.replace("\u2060", "") == text.replace("\u2060", "")
