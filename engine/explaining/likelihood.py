"""How likely a reply is behind a prompt, as a function of one fused prefix in it.

Owns reading the prompt once, scoring many versions of the prefix, and the gradient of the score. Knows neither where a
prefix comes from nor what it is made of. Shapes: `b` batch, `n` tokens, `k` prefix tokens, `d_lm` width, `v`
vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from engine.decoder.language_model import LanguageModel
from engine.decoder.prompt import TokenPieces

# Versions of the prefix that are read side by side: more cost memory, and gain nothing.
BATCH_SIZE = 16
# So many logits at once: those of a long reply in a wide vocabulary would need gigabytes.
MAX_LOGITS = 1 << 26


class ReplyLikelihood:
    """The log-likelihood of one reply, with every prefix but one left as it is.

    What stands before that prefix is read once. Its keys and values are kept where the model's cache is plain.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        prompt: TokenPieces,
        prefixes: Sequence[Tensor],
        *,
        index: int,
        reply_ids: Sequence[int],
        steering: Tensor | None = None,
        varies_steering: bool = False,
    ) -> None:
        """`prefixes[index]` is the one that will be varied; `reply_ids` must not be empty. `steering: (d_lm,)` is at
        work while the reply is written. With `varies_steering` it is the last row of each version instead."""
        self._steering = steering
        self._varies_steering = varies_steering
        self._language_model = language_model
        self._keeps_last = "logits_to_keep" in inspect.signature(language_model.model.forward).parameters
        self._reply = torch.tensor(list(reply_ids), device=language_model.device)
        with torch.no_grad():
            parts = [language_model.embed(prompt.pieces[0])]
            for prefix, piece in zip(prefixes, prompt.pieces[1:], strict=True):
                parts += [prefix.to(parts[0]), language_model.embed(piece)]
            place = 2 * index + 1
            self._head = torch.cat(parts[:place])[None]
            self._tail = torch.cat([*parts[place + 1 :], language_model.embed(self._reply)])[None]
            self._kept = self._read_head() if language_model.is_cache_plain else None

    def of(self, prefixes: Tensor) -> Tensor:
        """The log-likelihood under each version of the prefix: `(b, k, d_lm)` → `(b,)`."""
        with torch.no_grad():
            fitting = MAX_LOGITS // (len(self._reply) * self._language_model.vocab_size)
            size = max(1, min(BATCH_SIZE, fitting))
            return torch.cat([self._score(batch) for batch in prefixes.split(size)])  # type: ignore[no-untyped-call]

    def gradient(self, prefix: Tensor) -> tuple[float, Tensor]:
        """The log-likelihood and its gradient, `(k, d_lm)` both ways, in float32."""
        with torch.enable_grad():
            varied = prefix.detach().clone().requires_grad_()
            score = self._score(varied[None])[0]
            (gradient,) = torch.autograd.grad(score, varied)
        return score.item(), gradient.float()

    def _read_head(self) -> list[tuple[Tensor, Tensor]]:
        cache = self._language_model.new_state().cache
        self._language_model.model(inputs_embeds=self._head, past_key_values=cache, use_cache=True, **self._last(1))
        layers: list[Any] = cache.layers
        return [(layer.keys, layer.values) for layer in layers]

    def _score(self, prefixes: Tensor) -> Tensor:
        """`(b, k, d_lm)` → `(b,)`."""
        b, num_reply = len(prefixes), len(self._reply)
        prefixes, bias = self._split(prefixes)
        parts = [prefixes.to(self._tail), self._tail.expand(b, -1, -1)]
        cache = None if self._kept is None else DynamicCache([_repeated(layer, b) for layer in self._kept])
        if cache is None:
            parts.insert(0, self._head.expand(b, -1, -1))
        output = self._language_model.model(
            inputs_embeds=torch.cat(parts, dim=1),
            past_key_values=cache,
            use_cache=cache is not None,
            **self._last(num_reply + 1),
        )
        logits: Tensor = output.logits[:, -num_reply - 1 : -1].float() + bias
        chosen = logits.log_softmax(dim=-1).gather(-1, self._reply.expand(b, -1)[..., None])
        return chosen.sum(dim=(1, 2))

    def _split(self, versions: Tensor) -> tuple[Tensor, Tensor | float]:
        """Soft tokens, and what the steering adds to the logits, `(b, 1, v)` or the same for all."""
        if self._varies_steering:
            return versions[:, :-1], self._language_model.bias_of(versions[:, -1:])
        return versions, 0.0 if self._steering is None else self._language_model.bias_of(self._steering)

    def _last(self, num: int) -> dict[str, int]:
        """Logits of the last positions only, where the model can do that: a vocabulary is wide."""
        return {"logits_to_keep": num} if self._keeps_last else {}


def _repeated(layer: tuple[Tensor, Tensor], b: int) -> tuple[Tensor, Tensor]:
    """Keys and values of one conversation, for `b` versions of its end."""
    keys, values = layer
    return keys.expand(b, -1, -1, -1), values.expand(b, -1, -1, -1)
