"""Chooses the next token from its logits. Shapes: `v` vocabulary."""

import secrets
from collections.abc import Iterable, Sequence

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

    @property
    def num_wanted(self) -> int:
        """How many of the likeliest tokens it looks at; 0 where it looks at all."""
        return 1 if self._settings.temperature == 0 else self._settings.top_k

    def choose(self, logits: Tensor) -> int:
        """The next token's id. `logits: (v,)` in float32."""
        (chosen,) = choose_all([self], logits[None].clone())
        if chosen is None:
            raise no_numbers()
        return chosen

    def penalise(self, logits: Tensor) -> None:
        """Make what was said less likely in `logits: (v,)`, whatever the sign."""
        penalty = self._settings.repetition_penalty
        if penalty != 1.0 and len(self._said):
            said = logits[self._said]
            logits.index_copy_(0, self._said, torch.where(said > 0, said / penalty, said * penalty))

    def draw(self, values: Tensor, ids: Tensor) -> Tensor:
        """One of `ids: (k,)`, whose logits are `values: (k,)`, the likeliest first."""
        # The distance to the likeliest, so that no temperature is too small to divide by.
        scaled = (values - values[0]) / max(self._settings.temperature, MIN_TEMPERATURE)
        probabilities = self._filter(torch.softmax(scaled, dim=-1))
        # A race of exponentials draws like `multinomial`, without its check that would stop a whole GPU. Some
        # generators draw 0 once in millions, and 0 / 0 would let a token win that was filtered out.
        times = torch.empty_like(probabilities).exponential_(generator=self._generator).clamp_min_(MIN_TIME)
        return ids[(probabilities / times).argmax()]

    def note(self, token_id: int) -> None:
        """`token_id` is said."""
        if self._settings.repetition_penalty != 1.0 and token_id not in self._known and token_id not in self._exempt:
            self._known.add(token_id)
            self._said = torch.cat([self._said, self._said.new_tensor([token_id])])

    def _filter(self, probabilities: Tensor) -> Tensor:
        """Set the tail to zero that `top_p` and `min_p` cut off; what is left are weights."""
        if self._settings.top_p < 1:
            mass_before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(mass_before >= self._settings.top_p, 0.0)
        if self._settings.min_p > 0:
            floor = self._settings.min_p * probabilities[0]
            probabilities = probabilities.masked_fill(probabilities < floor, 0.0)
        return probabilities


def choose_all(samplers: Sequence[Sampler], logits: Tensor) -> list[int | None]:
    """The next token of each row of `logits: (s, v)`, which is changed; `None` where the model gave no numbers.

    What looks at all rows does so at once, and one transfer brings all tokens from the device.
    """
    if not samplers:
        return []
    for sampler, row in zip(samplers, logits, strict=True):
        sampler.penalise(row)
    tokens = _likeliest(logits)
    most = min(max((sampler.num_wanted for sampler in samplers), default=1), logits.shape[1])
    values, ids = logits.topk(most) if most > 1 else (logits[:, :0], tokens[:, None])
    for number, sampler in enumerate(samplers):
        if sampler.num_wanted == 0:
            tokens[number] = sampler.draw(*logits[number].sort(descending=True))
        elif sampler.num_wanted > 1:
            tokens[number] = sampler.draw(values[number, : sampler.num_wanted], ids[number, : sampler.num_wanted])
    is_number = logits.gather(1, tokens[:, None])[:, 0].isfinite()
    chosen = [token if token >= 0 else None for token in torch.where(is_number, tokens, -1).tolist()]
    for sampler, token in zip(samplers, chosen, strict=True):
        if token is not None:
            sampler.note(token)
    return chosen


def _likeliest(logits: Tensor) -> Tensor:
    """The likeliest token of each row, `(s, v)` → `(s,)`."""
    if logits.device.type == "cpu":
        # numpy looks at a whole vector register at a time; torch takes twelve times as long.
        return torch.from_numpy(logits.numpy().argmax(axis=-1))
    return logits.argmax(dim=-1)


def no_numbers() -> DeviceError:
    """What to tell where a row of logits was broken."""
    return DeviceError('the model computed no numbers in this format: set engine.dtype = "float32" or "bfloat16"')
