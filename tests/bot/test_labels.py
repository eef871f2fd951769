from collections.abc import AsyncIterator

import pytest

from bot.labels import without_labels
from engine.types import FinishReason, ReplyChunk

NAMES = ("Old Maren", "Grub", "Ada")


async def said(*texts: str) -> list[ReplyChunk]:
    async def chunks() -> AsyncIterator[ReplyChunk]:
        for text in texts:
            yield ReplyChunk(text)
        yield ReplyChunk("", FinishReason.STOP)

    return [chunk async for chunk in without_labels(chunks(), NAMES)]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Grub: Shiny!", "Shiny!"),
        ("grub:Shiny!", "Shiny!"),
        ("Old Maren: Grub: I do not know.", "I do not know."),
        ("Ada: it is late: very.", "it is late: very."),
        ("Grub says: hello", "Grub says: hello"),
        ("Old Mar", "Old Mar"),
        ("Note: Ada: left alone", "Note: Ada: left alone"),
        ("  Shiny!", "  Shiny!"),
        ("Grub:", ""),
        ("", ""),
    ],
)
async def test_labels_are_taken_away_however_they_come(text: str, left: str) -> None:
    for step in (1, 3, 100):
        pieces = [text[at : at + step] for at in range(0, len(text), step)]
        chunks = await said(*pieces)
        assert "".join(chunk.text for chunk in chunks) == left
        assert chunks[-1].finish_reason is FinishReason.STOP


async def test_words_are_not_held_back_longer_than_needed() -> None:
    assert [chunk.text for chunk in await said("Old ", "friend", "!")] == ["", "Old friend", "!", ""]


async def test_whoever_stops_listening_stops_the_reply() -> None:
    closed: list[bool] = []

    async def chunks() -> AsyncIterator[ReplyChunk]:
        try:
            yield ReplyChunk("Hello")
            yield ReplyChunk("never")
        finally:
            closed.append(True)

    reply = without_labels(chunks(), NAMES)
    async for _ in reply:
        break
    await reply.aclose()  # type: ignore[attr-defined]
    assert closed == [True]
