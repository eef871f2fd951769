"""A persona's lexicon and length at work while tokens are chosen.

`lexicon_processors` is the way in. Parts: `spelling` (what counts as the same letter, and where words end),
`vocabulary` (tokens as bytes), `phrases` (finding them in a text that grows), `bans`, `wishes`, `emoji`, `sentences`,
`lengths`, and `processor`, which puts them together. Knows neither prompts nor scheduling.
"""

from engine.generation.lexicon.processor import lexicon_processors

__all__ = ["lexicon_processors"]
