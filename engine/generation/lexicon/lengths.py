"""How long a reply becomes: once it has the sentences that its persona promises, ending gets likelier with each.

Owns that measure. Ends are made likelier where a sentence has ended, never within one.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from engine.generation.lexicon.sentences import Sentences

PROMISED_SENTENCES: dict[Literal["short", "medium", "long"], int | None] = {"short": 2, "medium": 4, "long": None}
# In nats, for each sentence from the last promised one on.
PUSH, MAX_PUSH = 3.0, 12.0


class Ending:
    """Makes the tokens `end_ids` likelier."""

    def __init__(self, end_ids: Iterable[int], *, num_sentences: int, device: torch.device) -> None:
        self._end_ids = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
        self._num_sentences = num_sentences

    def push(self, logits: Tensor, sentences: Sentences) -> None:
        """Change `logits: (v,)` for the token that follows `sentences`."""
        num_over = sentences.num - self._num_sentences + 1
        if num_over > 0 and sentences.is_at_end:
            logits[self._end_ids] += min(num_over * PUSH, MAX_PUSH)
