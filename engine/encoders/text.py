"""The text encoder: a small BERT that gives a state for every token, and one pooled vector for a sentence.

Shapes: `b` texts, `n_t` tokens, `d_t` the encoder's width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BertModel

from engine.encoders.types import SentenceFeatures, TextFeatures
from engine.errors import ConfigurationError, WeightsError

# Longer texts are cut: the language model reads all of the words anyway, the fusion needs only their gist.
MAX_TOKENS = 64
BATCH_SIZE = 64
START, END, MASK = "[CLS]", "[SEP]", "[MASK]"


class TextEncoder:
    """Texts into token states."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:  # noqa: ANN401 - any BERT-like module
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()
        self.width: int = model.config.hidden_size

    @classmethod
    def load(cls, folder: Path, *, device: str | torch.device = "cpu") -> "TextEncoder":
        """The encoder in `folder`: a BERT checkpoint with its `tokenizer.json`."""
        try:
            model: Any = BertModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises a bare Exception for a damaged file
            raise WeightsError(
                f"The text encoder in {folder} is damaged ({type(error).__name__}); "
                "delete that folder and run `commedia models fetch`."
            ) from error
        return cls(model.to(device), tokenizer)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        """Token states of each text. An empty text has no tokens."""
        return [
            TextFeatures(states[keep], tuple(word for word, kept in zip(words, keep.tolist(), strict=True) if kept))
            for states, keep, words in self._run(texts)
        ]

    @torch.no_grad()
    def pool(self, texts: Sequence[str]) -> Tensor:
        """One vector of length 1 a text, `(b, d_t)`: the mean over its tokens, its start and end marks with them."""
        if not texts:
            return torch.zeros(0, self.width, device=self.model.device)
        vectors = [self._pool_batch(texts[i : i + BATCH_SIZE]) for i in range(0, len(texts), BATCH_SIZE)]
        return torch.nn.functional.normalize(torch.cat(vectors), dim=-1)

    @torch.no_grad()
    def encode_sentences(self, texts: Sequence[str]) -> list[SentenceFeatures]:
        """Token states and pooled vector of each text, in one pass."""
        sentences = []
        for start in range(0, len(texts), BATCH_SIZE):
            states, mask, encodings = self._forward(texts[start : start + BATCH_SIZE])
            pooled = torch.nn.functional.normalize(_mean(states, mask), dim=-1)
            for row, encoding in enumerate(encodings):
                sentences.append(SentenceFeatures(states[row, _is_word(encoding, states.device)], pooled[row]))
        return sentences

    @property
    def embeddings(self) -> Tensor:
        """The table of token embeddings, `(vocabulary, d_t)`."""
        table: Tensor = self.model.get_input_embeddings().weight
        return table

    @property
    def mask_id(self) -> int:
        """The token that hides another one. Raises `ConfigurationError` where the encoder has none."""
        number = self.tokenizer.token_to_id(MASK)
        if number is None:
            raise ConfigurationError(f"this text encoder has no token {MASK}: leave out the task `masked`")
        return int(number)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without marks of beginning and end."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            [number for number, kept in zip(one.ids, one.attention_mask, strict=True) if kept][: MAX_TOKENS - 2]
            for one in encodings
        ]

    @torch.no_grad()
    def encode_ids(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """States `(n_t, d_t)` of texts given by their tokens; marks are put around them, and left out of the states."""
        start, end = (self.tokenizer.token_to_id(mark) for mark in (START, END))
        device = self.model.device
        marked = [torch.tensor([start, *row, end], device=device) for row in rows]
        ids = pad_sequence(marked, batch_first=True)
        mask = pad_sequence([torch.ones_like(row) for row in marked], batch_first=True)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return [one[1 : 1 + len(row)] for one, row in zip(states, rows, strict=True)]

    def _pool_batch(self, texts: Sequence[str]) -> Tensor:
        states, mask, _ = self._forward(texts)
        return _mean(states, mask)

    def _run(self, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        for start in range(0, len(texts), BATCH_SIZE):
            states, _, encodings = self._forward(texts[start : start + BATCH_SIZE])
            for row, encoding in enumerate(encodings):
                yield states[row], _is_word(encoding, states.device), encoding.tokens

    def _forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, list[Any]]:
        encodings = self.tokenizer.encode_batch(list(texts))
        device = self.model.device
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask.bool(), encodings


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _is_word(encoding: Any, device: torch.device) -> Tensor:  # noqa: ANN401 - an untyped library's encoding
    """Neither a mark of beginning or end, nor padding: `(n_t,)`."""
    return ~torch.tensor(encoding.special_tokens_mask, device=device).bool()
