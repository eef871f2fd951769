"""The half of an engine that only answers: everything else that can be asked of one is refused in words for people.

Owns the refusals. Knows nothing of how replies are made.
"""

from collections.abc import Sequence
from typing import NoReturn

from engine.errors import NotAvailable
from engine.types import Embedding, Explanation, GenerationRequest, Image, Sight, Translation

ELSEWHERE = (
    "The model that answers here runs on another server, which only takes and gives text: I cannot look at pictures or "
    "into my own reasons there. Whoever runs me can choose an engine that does (docs/remote.md says what is lost)."
)


class Sightless:
    """A `SeeingEngine` that sees nothing. `refusal` is shown to whoever asked."""

    refusal = ELSEWHERE

    async def describe(self, image: Image, *, question: str | None = None, language: str | None = None) -> Sight:  # noqa: ARG002
        """Nothing here sees."""
        self._refuse()

    async def space(self) -> str:
        """Nothing here sees."""
        self._refuse()

    async def embed_images(self, images: Sequence[Image]) -> tuple[Embedding, ...]:  # noqa: ARG002
        """Nothing here sees."""
        self._refuse()

    async def embed_text(self, text: str) -> Embedding:  # noqa: ARG002
        """Nothing here sees."""
        self._refuse()

    async def match(self, text: str, images: Sequence[Image]) -> tuple[float, ...]:  # noqa: ARG002
        """Nothing here sees."""
        self._refuse()

    async def translate(self, text: str, *, language: str, images: tuple[Image, ...] = ()) -> Translation:  # noqa: ARG002
        """No model for this is at hand."""
        self._refuse()

    async def explain(self, request: GenerationRequest, reply: str) -> Explanation:  # noqa: ARG002
        """There is no fused prefix to explain anything by."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotAvailable(self.refusal)
