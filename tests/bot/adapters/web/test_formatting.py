"""Markdown comes out as HTML, and nothing else does."""

from html.parser import HTMLParser

import pytest

from bot.adapters.web.formatting import render_markdown


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**bold** and *soft*", "<p><strong>bold</strong> and <em>soft</em></p>"),
        ("one\ntwo", "<p>one<br />\ntwo</p>"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>"),
        ("`<b>`", "<p><code>&lt;b&gt;</code></p>"),
        ("~~no~~", "<p><s>no</s></p>"),
        ("[here](https://example.org/a)", '<p><a href="https://example.org/a">here</a></p>'),
    ],
)
def test_markdown_is_formatted(text: str, html: str) -> None:
    assert render_markdown(text).strip() == html


class TagReader(HTMLParser):
    """Notes tags and attributes as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "hello <script>alert(1)</script>",
        '<a href="https://example.org" onclick="alert(1)">x</a>',
        "[x](javascript:alert(1))",
        "[x](vbscript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        '[x](https://example.org "a\\" onmouseover=\\"alert(1)")',
        "![x](javascript:alert(1))",
        '![" onerror="alert(1)](https://example.org/a.png)',
        "<iframe src='https://example.org'></iframe>",
        "```html\n<img src=x onerror=alert(1)>\n```",
        "|a|\n|-|\n|<img src=x onerror=alert(1)>|",
    ],
)
def test_nothing_dangerous_gets_through(text: str) -> None:
    reader = TagReader()
    reader.feed(render_markdown(text))
    assert reader.names <= {"p", "a", "pre", "code", "table", "thead", "tbody", "tr", "th", "td"}
    assert {name for name, _ in reader.attributes} <= {"href", "title", "class"}
    assert all((value or "").startswith("https://") for name, value in reader.attributes if name == "href")


def test_a_picture_in_a_reply_is_a_link_that_loads_nothing() -> None:
    html = render_markdown('![a "dog"](https://example.org/dog.png)')
    assert html.strip() == '<p><a href="https://example.org/dog.png">a &quot;dog&quot;</a></p>'
