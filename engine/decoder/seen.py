"""What a vision-language model makes of a prompt before its decoder reads it: pictures in place, as embeddings.

Owns looking that up in the model on its way. With it, a prompt with pictures can be read in parts and beside others,
like any other prompt. Shapes: `n` positions, `d_lm` width.
"""

import hashlib
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.decoder.language_model import EncodedPrompt, LanguageModel

# What a decoder may be handed without a consequence for what it computes, pictures or not.
HARMLESS = frozenset({"use_cache", "cache_position", "past_key_values", "return_dict", "output_attentions"})


class NotSeparable(Exception):
    """The decoder is told more of the pictures than their embeddings and places."""


class _Seen(Exception):
    """Ends the model's forward pass where the decoder would begin."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        super().__init__()
        self.inputs = inputs


@torch.inference_mode()
def see(language_model: LanguageModel, prompt: EncodedPrompt) -> EncodedPrompt:
    """`prompt` with the embeddings and positions that the decoder would get. Raises `NotSeparable` where that is not
    all."""

    def stop(_: object, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        raise _Seen(inputs if not arguments else {**inputs, "arguments": arguments})

    model, decoder = language_model.model, language_model.model.get_decoder()
    hook = decoder.register_forward_pre_hook(stop, with_kwargs=True)
    ids = torch.tensor([prompt.pieces[0]], dtype=torch.long, device=language_model.device)
    try:
        model(input_ids=ids, **language_model.on_device(prompt.pictures), use_cache=False)
    except _Seen as seen:
        inputs = seen.inputs
    else:
        raise NotSeparable("its decoder is not called as a module")
    finally:
        hook.remove()
    embeddings, positions = inputs.pop("inputs_embeds", None), inputs.pop("position_ids", None)
    mask = inputs.pop("attention_mask", None)
    beyond = {name for name, value in inputs.items() if value is not None and name not in HARMLESS}
    if embeddings is None or (isinstance(mask, Tensor) and mask.dim() > 2) or isinstance(mask, dict):
        raise NotSeparable("its decoder masks pictures in a way of its own")
    if beyond - {name for name in beyond if isinstance(inputs[name], bool | int)}:
        raise NotSeparable(f"its decoder also takes {', '.join(sorted(beyond))}")
    return replace(prompt, embeddings=embeddings[0], positions=None if positions is None else _squeezed(positions))


def keys_of(language_model: LanguageModel, prompt: EncodedPrompt) -> tuple[Hashable, ...]:
    """What each position of a seen `prompt` was made from: a token id, or the picture's own embedding there."""
    assert prompt.embeddings is not None  # noqa: S101 - `see` has set it
    plain = language_model.embed(prompt.pieces[0])
    is_picture = (plain != prompt.embeddings).any(dim=-1).tolist()
    positions = [None] * prompt.num_tokens if prompt.positions is None else prompt.positions.T.tolist()
    return tuple(
        (token_id, _digest(embedding), str(position)) if is_seen else (token_id, str(position))
        for token_id, embedding, is_seen, position in zip(
            prompt.pieces[0], prompt.embeddings, is_picture, positions, strict=True
        )
    )


def positions_after(prompt: EncodedPrompt, num_positions: int) -> Tensor | None:
    """What the model is told of the position `num_positions` of a reply to `prompt`: `(1,)` or `(3, 1)`."""
    if prompt.positions is None:
        return None
    return prompt.positions[..., -1:] + (num_positions - prompt.num_tokens + 1)


def _squeezed(positions: Tensor) -> Tensor:
    """`(1, n)` or `(3, 1, n)` without the batch, on the CPU."""
    return positions.squeeze(-2).cpu()


def _digest(embedding: Tensor) -> str:
    return hashlib.sha256(embedding.float().cpu().numpy().tobytes()).hexdigest()
