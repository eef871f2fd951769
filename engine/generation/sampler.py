"""Chooses the next token from its logits. Shapes: `v` vocabulary."""

import secrets
from collections.abc import Iterable

import torch
from torch import Tensor

from engine.errors import DeviceError
from engine.types import SamplingSettings

# Smaller ones would choose the same, and are 0 in float32.
MIN_TEMPERATURE = 1e-6
MIN_TIME = 1e-30


class Sampler:
    """One reply's choices, with a random generator of its own: the same seed chooses the same."""

    def __init__(
        self,
        settings: SamplingSettings,
        *,
        vocab_size: int,
        device: torch.device,
        penalised_ids: Iterable[int] = (),
        exempt_ids: Iterable[int] = (),
    ) -> None:
        """`penalised_ids` are what earlier replies said; `exempt_ids`, the ends of a turn, are never penalised. Raises
        `RequestError` for settings that cannot be met."""
        settings.require_possible()
        self._settings = settings
        self._generator = torch.Generator(device)
        # The generator takes 64 bits; any whole number is welcome as a seed.
        seed = secrets.randbits(63) if settings.seed is None else settings.seed % 2**63
        self._generator.manual_seed(seed)
        self._exempt = frozenset(exempt_ids)
        said = sorted({token for token in penalised_ids if token < vocab_size} - self._exempt)
        self._said = torch.tensor(said, dtype=torch.long, device=device)
        self._known = set(said)

    def choose(self, logits: Tensor) -> int:
        """The next token's id. `logits: (v,)` in float32."""
        token = self._draw(self._penalise(logits))
        # One transfer from the device a token: a broken row of logits comes back as -1.
        chosen = int(torch.where(logits[token].isfinite(), token, -1))
        if chosen < 0:
            raise DeviceError(
                'the model computed no numbers in this format: set engine.dtype = "float32" or "bfloat16"'
            )
        if chosen not in self._known and chosen not in self._exempt:
            self._known.add(chosen)
            self._said = torch.cat([self._said, token.reshape(1)])
        return chosen

    def _penalise(self, logits: Tensor) -> Tensor:
        """Make what was said less likely, whatever the sign of its logit."""
        penalty = self._settings.repetition_penalty
        if penalty == 1.0 or not len(self._said):
            return logits
        said = logits[self._said]
        return logits.index_copy(0, self._said, torch.where(said > 0, said / penalty, said * penalty))

    def _draw(self, logits: Tensor) -> Tensor:
        if self._settings.temperature == 0:
            return logits.argmax()
        # Sorted, the likeliest first: each filter keeps a head of it, and that head is never empty.
        num_kept = min(self._settings.top_k or len(logits), len(logits))
        values, ids = torch.topk(logits, num_kept)
        # The distance to the likeliest, so that no temperature is too small to divide by.
        scaled = (values - values[0]) / max(self._settings.temperature, MIN_TEMPERATURE)
        probabilities = self._filter(torch.softmax(scaled, dim=-1))
        # A race of exponentials draws like `multinomial`, without its check that would stop a whole GPU. Some
        # generators draw 0 once in millions, and 0 / 0 would let a token win that was filtered out.
        times = torch.empty_like(probabilities).exponential_(generator=self._generator).clamp_min_(MIN_TIME)
        return ids[(probabilities / times).argmax()]

    def _filter(self, probabilities: Tensor) -> Tensor:
        """Set the tail to zero that `top_p` and `min_p` cut off; what is left are weights."""
        if self._settings.top_p < 1:
            mass_before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(mass_before >= self._settings.top_p, 0.0)
        if self._settings.min_p > 0:
            floor = self._settings.min_p * probabilities[0]
            probabilities = probabilities.masked_fill(probabilities < floor, 0.0)
        return probabilities
