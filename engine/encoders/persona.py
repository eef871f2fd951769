"""The persona encoder: every facet of a persona becomes one token, by the text encoder.

Kept by the persona's digest, so that an edited file is encoded anew and an unchanged one never twice.
"""

from collections import OrderedDict

from engine.encoders.text import TextEncoder
from engine.encoders.types import PersonaFeatures
from engine.persona import Persona

MAX_PERSONAS = 256
# Lore can run to hundreds of entries; the schema's order puts what defines the character first.
MAX_FACETS = 48


class PersonaEncoder:
    """Personas into one token a facet."""

    def __init__(self, text: TextEncoder) -> None:
        self._text = text
        self._cache: OrderedDict[str, PersonaFeatures] = OrderedDict()

    def encode(self, persona: Persona) -> PersonaFeatures:
        """The persona's tokens, from the cache where its digest is known."""
        digest = persona.digest()
        if digest not in self._cache:
            facets = list(persona.facets())[:MAX_FACETS]
            tokens = self._text.pool([facet.text for facet in facets])
            kinds, texts = tuple(facet.kind for facet in facets), tuple(facet.text for facet in facets)
            self._cache[digest] = PersonaFeatures(tokens, kinds, texts)
        self._cache.move_to_end(digest)
        if len(self._cache) > MAX_PERSONAS:
            self._cache.popitem(last=False)
        return self._cache[digest]
