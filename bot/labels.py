"""The names that stand before what is said in a room, taken away from replies: a model writes on as it was shown. Pure.

Owns how such a label is told from words. Knows neither models nor platforms.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from bot.words import fold
from engine.types import ReplyChunk


async def without_labels(chunks: AsyncIterator[ReplyChunk], names: Sequence[str]) -> AsyncIterator[ReplyChunk]:
    """`chunks` without labels such as `Ann: ` of anybody in `names` before the first words."""
    labels = [f"{fold(name)}:" for name in names if name.strip()]
    held = ""
    is_begun = has_label = False
    try:
        async for chunk in chunks:
            if is_begun:
                yield chunk
                continue
            held += chunk.text
            bare = _unlabelled(held, labels)
            has_label |= bare != held
            held = bare.lstrip() if has_label else bare
            is_begun = chunk.finish_reason is not None or not _may_be_label(held, labels)
            yield replace(chunk, text=held if is_begun else "")
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def _unlabelled(text: str, labels: Sequence[str]) -> str:
    """`text` from behind the labels that it begins with; as it is where it begins with none."""
    bare = text.lstrip()
    for label in labels:
        if fold(bare[: len(label)]) == label:
            return _unlabelled(bare[len(label) :].lstrip(), labels)
    return text


def _may_be_label(text: str, labels: Sequence[str]) -> bool:
    """Whether more words may show that `text` begins with a label."""
    begun = fold(text.lstrip())
    return any(label.startswith(begun) for label in labels)
