"""Finds pictures by their content: keeps what each looks like to the engine, and ranks them by a description.

Owns which pictures are looked at, when, and what is kept. Does not know whose pictures it ranks: whoever calls hands
over those of one conversation, and no other is touched.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bot.errors import StoreError
from bot.types import Attachment, PictureShown
from engine.errors import EngineBusy, EngineError, NotAvailable
from engine.types import Image, SeeingEngine

logger = logging.getLogger(__name__)
T = TypeVar("T")

NUM_AT_ONCE = 4
MAX_WAITING = 64
NUM_LOOKED_AT_CLOSELY = 8


class Embeddings(Protocol):
    """What pictures look like: `bot.store.repositories.PictureEmbeddings`. Raises `StoreError`."""

    async def of(self, digests: Sequence[str], *, space: str) -> dict[str, tuple[float, ...]]:
        """The embeddings that are known in `space`."""

    async def put(self, vectors: dict[str, tuple[float, ...]], *, space: str) -> None:
        """Keep embeddings."""


class PictureFiles(Protocol):
    """Stored pictures: `bot.store.attachments.AttachmentStore`. Raises `StoreError`."""

    async def read(self, digest: str) -> bytes:
        """A picture that was kept."""


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """A picture, and how well a description fits it, from 0 to 1."""

    shown: PictureShown
    data: bytes
    match: float


class PictureIndex:
    """Looks at new pictures one after another in the background, and at those it has missed when they are asked for."""

    def __init__(self, engine: SeeingEngine, embeddings: Embeddings, files: PictureFiles) -> None:
        self._engine = engine
        self._embeddings = embeddings
        self._files = files
        self._waiting: dict[str, None] = {}
        self._worker: asyncio.Task[None] | None = None

    def look_soon(self, attachments: Sequence[Attachment]) -> None:
        """Look at pictures when there is time. What does not fit into the queue is looked at when it is asked for."""
        for attachment in attachments:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[attachment.digest] = None
        if self._waiting and (self._worker is None or self._worker.done()):
            self._worker = asyncio.create_task(self._look_at_waiting(), name="picture index")

    async def rank(self, pictures: Sequence[PictureShown], description: str) -> list[FoundPicture]:
        """Those of `pictures` that may fit `description`, the best first. Raises `EngineError`, `StoreError`.

        `pictures` come newest first: where there are no embeddings, only the newest are looked at.
        """
        digests = [shown.attachment.digest for shown in pictures]
        try:
            space = await self._engine.space()
        except NotAvailable:
            # A model that compares without embeddings is asked of each, so of few; a blind one refuses that too.
            return await self._look_closely(pictures[:NUM_LOOKED_AT_CLOSELY], description)
        known = await self._look_at(digests, space=space)
        wanted = (await self._engine.embed_text(description)).values
        likeliest = sorted(
            (shown for shown in pictures if shown.attachment.digest in known),
            key=lambda shown: -_dot(known[shown.attachment.digest], wanted),
        )
        return await self._look_closely(likeliest[:NUM_LOOKED_AT_CLOSELY], description)

    async def aclose(self) -> None:
        """Stop looking."""
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker

    async def _look_closely(self, pictures: Sequence[PictureShown], description: str) -> list[FoundPicture]:
        files = {shown.attachment.digest: await self._read(shown.attachment.digest) for shown in pictures}
        seen = [(shown, image) for shown in pictures if (image := files[shown.attachment.digest]) is not None]
        matches = await _of_each([image for _, image in seen], lambda images: self._engine.match(description, images))
        if seen and not matches:
            raise EngineError("the engine could look at none of the pictures that may fit")
        found = [
            FoundPicture(shown, image.data, matches[image.digest])
            for shown, image in seen
            if math.isfinite(matches.get(image.digest, math.nan))
        ]
        return sorted(found, key=lambda one: -one.match)

    async def _look_at(self, digests: Sequence[str], *, space: str) -> dict[str, tuple[float, ...]]:
        """The embeddings of pictures; those missing, or made with other weights, are made and kept."""
        known = await self._embeddings.of(digests, space=space)
        missing = [digest for digest in dict.fromkeys(digests) if digest not in known]
        for start in range(0, len(missing), NUM_AT_ONCE):
            read = [await self._read(digest) for digest in missing[start : start + NUM_AT_ONCE]]
            made = await _of_each([image for image in read if image is not None], self._engine.embed_images)
            new = {
                digest: one.values
                for digest, one in made.items()
                if one.space == space and all(map(math.isfinite, one.values))
            }
            await self._embeddings.put(new, space=space)
            known |= new
        return known

    async def _read(self, digest: str) -> Image | None:
        try:
            return Image(digest, await self._files.read(digest))
        except StoreError as error:
            logger.warning("a picture is left out of the search: %s", error)
            return None

    async def _look_at_waiting(self) -> None:
        """Until none is waiting. What cannot be done now is done, or told, when somebody searches."""
        try:
            space = await self._engine.space()
            while self._waiting:
                digests = list(self._waiting)[:NUM_AT_ONCE]
                await self._look_at(digests, space=space)
                for digest in digests:
                    self._waiting.pop(digest, None)
        except (EngineError, StoreError) as error:
            self._waiting.clear()
            logger.debug("pictures are not looked at in advance: %s", error)
        except Exception as error:
            # The boundary of a task that nobody waits for.
            self._waiting.clear()
            logger.error("pictures could not be looked at in advance", exc_info=error)


async def _of_each(images: Sequence[Image], look: Callable[[Sequence[Image]], Awaitable[Sequence[T]]]) -> dict[str, T]:
    """What `look` makes of each picture, by digest. One that the engine fails on is left out, not the others with it.

    Raises `NotAvailable` and `EngineBusy`.
    """
    if not images:
        return {}
    try:
        return dict(zip((image.digest for image in images), await look(images), strict=True))
    except (NotAvailable, EngineBusy):
        raise
    except EngineError as error:
        if len(images) == 1:
            logger.warning("a picture is left out of the search: %s", error)
            return {}
    alone = [await _of_each([image], look) for image in images]
    return {digest: one for made in alone for digest, one in made.items()}


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
