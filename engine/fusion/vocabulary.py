"""The concept words: what the image encoder's classes mean to the text encoder, and how the language model spells them.

Shapes: `m` tokens of a class name, `d_t`, `d_lm` widths of text encoder and language model.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.encoders.text import TextEncoder
from engine.errors import ConfigurationError, WeightsError
from engine.fusion.model import ConceptVocabulary

CLASSES_FILE = "classes.json"
_REMARK = re.compile(r" \(.*?\)|(?:,| /| or ).*")


def read_class_names(folder: Path) -> tuple[str, ...]:
    """The names in `classes.json`, without remarks in brackets and without second names."""
    path = folder / CLASSES_FILE
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read; delete its folder and run `commedia models fetch`") from error
    return tuple(_REMARK.sub("", name) for name in names)


def meanings_of(names: Sequence[str], text: TextEncoder) -> Tensor:
    """Each class as the text encoder sees "a photo of a …": `(num_classes, d_t)`."""
    return text.pool([f"a photo of a {name}" for name in names])


def spell(
    names: Sequence[str], *, tokenize: Callable[[str], list[int]], embeddings: Tensor, num_tokens: int
) -> tuple[Tensor, Tensor]:
    """The language model's own embeddings of each name's first tokens: `(num_classes, m, d_lm)`, and where there are
    any, `(num_classes, m)`."""
    ids = [tokenize(f" {name}")[:num_tokens] for name in names]
    padded = torch.tensor([row + [0] * (num_tokens - len(row)) for row in ids], dtype=torch.long)
    is_token = torch.tensor([[place < len(row) for place in range(num_tokens)] for row in ids])
    embedded = embeddings.detach()[padded.to(embeddings.device)].float() * is_token[..., None].to(embeddings.device)
    return embedded, is_token.to(embeddings.device)


def facet_ids(facets: Sequence[str], *, tokenize: Callable[[str], list[int]], num_tokens: int) -> Tensor:
    """The language model's first tokens of each facet: `(n_r, m)`, -1 where there are fewer."""
    rows = [tokenize(f" {facet}")[:num_tokens] for facet in facets]
    padded = [row + [-1] * (num_tokens - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.long).view(len(facets), num_tokens)


def build_vocabulary(
    names: Sequence[str],
    *,
    meanings: Tensor,
    tokenize: Callable[[str], list[int]],
    embeddings: Tensor,
    num_tokens: int,
) -> ConceptVocabulary:
    """The vocabulary of one decoder. `embeddings` is that decoder's input embedding table."""
    if len(names) != len(meanings):
        raise ConfigurationError(
            f"the fusion weights know {len(meanings)} classes, their list of names has {len(names)}; train again"
        )
    spelled, is_token = spell(names, tokenize=tokenize, embeddings=embeddings, num_tokens=num_tokens)
    return ConceptVocabulary(meanings, spelled, is_token, embeddings.detach())
