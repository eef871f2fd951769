"""A reply's Markdown as harmless HTML: no tag of the model's or of anybody's ever reaches the page as a tag.

Pictures in Markdown become links, so that a reply cannot make the browser call another machine.
"""

from collections.abc import MutableMapping, Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict


def _picture_as_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    token = tokens[index]
    label = renderer.renderInlineAsText(token.children or [], options, env) or "picture"
    address = escape(str(token.attrGet("src") or ""))
    return f'<a href="{address}">{escape(label)}</a>'


_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
_MARKDOWN.add_render_rule("image", _picture_as_link)


def render_markdown(text: str) -> str:
    """`text` as HTML of paragraphs, lists, emphasis, code, quotes, tables and links."""
    return str(_MARKDOWN.render(text))
