"""What is measured: a fusion model beside the frozen models that it works with.

Owns loading and the two questions that every figure asks: how likely is a reply, and what would be said. Shapes: `b`
samples, `k` prefix tokens, `d_lm` width of the language model.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.utils import logging as transformers_logging

from engine.config import EngineConfig
from engine.decoder.checkpoint import open_checkpoint
from engine.device import bound_threads, choose_device, choose_dtype
from engine.encoders.types import ImageFeatures
from engine.errors import ConfigurationError
from engine.evaluation.figures import Values
from engine.fusion.config import FusionConfig
from engine.fusion.model import FusedBatch, FusionModel
from engine.fusion.weights import WEIGHTS_FILE, bind, read_fusion, shipped_folder
from engine.models.store import ModelStore
from engine.training.decoder import FrozenDecoder
from engine.training.samples import TrainingSample
from engine.training.workshop import Workshop, open_workshop

BATCH_SIZE = 32
SENTENCE_ENDS = ".!?\n"


@dataclass(frozen=True, slots=True)
class Subject:
    """A fusion model, or `None` for the language model alone: then no turn gets a prefix."""

    workshop: Workshop
    model: FusionModel | None

    def on_device(self, image: ImageFeatures) -> ImageFeatures:
        """A picture's features where the model computes."""
        device = self.workshop.meanings.device
        return ImageFeatures(image.patches.to(device), image.concept_ids.to(device), image.concept_weights.to(device))

    def losses(self, samples: Sequence[TrainingSample], *, has_prefix: bool = True) -> Values:
        """The mean loss over the tokens of each sample's reply, `(b,)`."""
        order = sorted(range(len(samples)), key=lambda row: len(samples[row].reply) + len(samples[row].turns[-1].text))
        losses = np.zeros(len(samples))
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            losses[rows] = self._batch_losses([samples[row] for row in rows], has_prefix=has_prefix).cpu().numpy()
        return losses

    @torch.no_grad()
    def _batch_losses(self, samples: Sequence[TrainingSample], *, has_prefix: bool) -> Tensor:
        decoder = self.workshop.decoder
        examples = [self.workshop.encoder.example(sample) for sample in samples]
        fused = self._fuse(samples) if has_prefix else None
        token_losses, rows = (
            decoder.reply_losses(examples, None)
            if fused is None
            else decoder.fused_reply_losses(examples, fused, rows=range(len(samples)))
        )
        totals = torch.zeros(len(samples), device=rows.device).index_add(0, rows, token_losses)
        return totals / torch.bincount(rows, minlength=len(samples))

    def _fuse(self, samples: Sequence[TrainingSample]) -> FusedBatch | None:
        if self.model is None:
            return None
        fused: FusedBatch = self.model(self.workshop.encoder.turns(samples))
        return fused

    def replies(
        self,
        samples: Sequence[TrainingSample],
        *,
        has_prefix: bool = True,
        max_new_tokens: int = 32,
        is_one_sentence: bool = False,
    ) -> list[str]:
        """What would be said instead of each sample's reply, by the likeliest token at every step."""
        order = sorted(range(len(samples)), key=lambda row: len(samples[row].system_prompt))
        said: dict[int, str] = {}
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = [samples[row] for row in rows]
            texts = self._batch_replies(
                batch, has_prefix=has_prefix, max_new_tokens=max_new_tokens, is_one_sentence=is_one_sentence
            )
            said.update(zip(rows, texts, strict=True))
        return [said[row] for row in range(len(samples))]

    @torch.no_grad()
    def _batch_replies(
        self, samples: Sequence[TrainingSample], *, has_prefix: bool, max_new_tokens: int, is_one_sentence: bool
    ) -> list[str]:
        decoder = self.workshop.decoder
        readings, shares = self._readings(samples, has_prefix=has_prefix)
        ids: list[list[int]] = [[] for _ in samples]
        is_done = [False] * len(samples)
        for _ in range(max_new_tokens):
            logits = torch.stack([reading.next_logits() for reading in readings], dim=1)
            chosen = (logits * shares[..., None]).sum(dim=1).argmax(dim=-1)
            for row, token in enumerate(chosen.tolist()):
                if is_done[row]:
                    continue
                is_done[row] = token == decoder.tokenizer.eos_token_id
                if not is_done[row]:
                    ids[row].append(token)
                    is_done[row] = is_one_sentence and _ends(decoder.tokenizer.decode([token]))
            if all(is_done):
                break
            for reading in readings:
                reading.read(chosen)
        return [decoder.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids]

    def _readings(self, samples: Sequence[TrainingSample], *, has_prefix: bool) -> tuple[list["_Reading"], Tensor]:
        """The prompts, read once for each prefix that they have, and how the answers are mixed: `(b, readings)`."""
        fused = self._fuse(samples) if has_prefix else None
        prefixes = [None] if fused is None else list(fused.prefixes)
        steering = [None] * len(prefixes) if fused is None or not fused.steering else list(fused.steering)
        readings = [
            _Reading(self.workshop.decoder, samples, prefix, steered)
            for prefix, steered in zip(prefixes, steering, strict=True)
        ]
        alone = torch.ones(len(samples), 1, device=self.workshop.decoder.device)
        return readings, alone if fused is None else fused.mixture


class _Reading:
    """Prompts that are read side by side, padded in front, and go on token by token."""

    def __init__(
        self,
        decoder: FrozenDecoder,
        samples: Sequence[TrainingSample],
        prefix: Tensor | None,
        steering: Tensor | None = None,
    ) -> None:
        """`prefix: (b, k, d_lm)`, `steering: (b, d_lm)`, or `None` for none."""
        self._decoder = decoder
        to_logits = decoder.model.get_output_embeddings()
        # Without the head's own bias, which is in the logits already.
        table = to_logits.weight
        self._bias = 0.0 if steering is None else functional.linear(steering.to(table.dtype), table).float()
        rows = []
        for row, sample in enumerate(samples):
            head, tail = (
                self._embed(torch.tensor(ids, dtype=torch.long, device=decoder.device))
                for ids in decoder.prompt(sample.system_prompt, sample.turns)
            )
            rows.append(torch.cat([head, tail] if prefix is None else [head, prefix[row].to(head.dtype), tail]))
        longest = max(map(len, rows))
        self._inputs = torch.stack([functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        self._mask = torch.tensor(mask, device=decoder.device)
        self._positions = (self._mask.cumsum(dim=1) - 1).clamp_min(0)
        self._cache = DynamicCache()

    def next_logits(self) -> Tensor:
        """Read what has come; what may come next, `(b, vocabulary)`."""
        logits: Tensor = self._decoder.model(
            inputs_embeds=self._inputs,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits.float() + self._bias

    def read(self, ids: Tensor) -> None:
        """`ids: (b,)` come next."""
        self._inputs = self._embed(ids[:, None])
        self._positions = self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)

    def _embed(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self._decoder.embeddings)


def _ends(text: str) -> bool:
    return any(mark in text for mark in SENTENCE_ENDS)


def open_subject(
    weights: Path | None, *, cache: Path, device: str, decoder: str, adapter: Path | None = None
) -> Subject:
    """The fusion in the folder `weights`; `None` is the language model `decoder` alone. `adapter` is the decoder's."""
    chosen = choose_device(device)
    bound_threads(None)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    models = ModelStore(cache)
    name = decoder if weights is None else FusionConfig.load(weights).decoder
    workshop = open_workshop(
        open_checkpoint(EngineConfig(cache_dir=cache, decoder=name), models),
        models=models,
        features=cache / "features",
        device=str(chosen),
        dtype=choose_dtype("auto", chosen),
        adapter=adapter,
    )
    return Subject(workshop, None if weights is None else load_fusion(weights, workshop))


def load_fusion(weights: Path, workshop: Workshop) -> FusionModel:
    """Trained weights, ready to measure."""
    return bind(
        read_fusion(weights),
        tokenize=workshop.decoder.tokenize,
        embeddings=workshop.decoder.embeddings,
        device=torch.device(workshop.device),
    )


def shipped_weights(decoder: str) -> Path:
    """The folder that ships for `decoder`. Raises `ConfigurationError` where none does."""
    folder = shipped_folder(decoder)
    if folder is None:
        raise ConfigurationError(f"no fusion weights ship for {decoder}; name a folder with --weights, or `none`")
    return folder


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights file, in hex."""
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
