"""What texts cost where no tokenizer is at hand.

Owns the estimate. Knows no model.
"""

import math
import re

from engine.types import ContextSize

# Letters a token takes, rather too few: most tokenizers take four letters of English, three of other Latin texts, and
# about one sign of the scripts without spaces.
LETTERS_PER_TOKEN = 3.0
_COSTLY = re.compile(r"[^\x00-\u024f]")


class EstimatedTokens:
    """A `TokenMeasure` that does not know its model."""

    def context(self) -> ContextSize:
        """Unknown."""
        return ContextSize()

    def count_tokens(self, text: str) -> int:
        """An estimate, rather too high."""
        num_costly = len(_COSTLY.findall(text))
        return num_costly + math.ceil((len(text) - num_costly) / LETTERS_PER_TOKEN)
