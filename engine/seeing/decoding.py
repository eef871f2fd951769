"""Several continuations of one prompt side by side: one greedy, the others drawn.

Owns decoding in a batch, and how likely the language model found what it said. Knows neither pictures nor what the
texts are for. The draws are seeded: the same prompt gives the same texts. Shapes: `n` continuations, `v` vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.decoder.language_model import EncodedPrompt, LanguageModel
from engine.errors import DeviceError
from engine.seeing.work import Pieces

SENTENCE_ENDS = (".", "!", "?", "\n")


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """`num_drawn` texts beside the greedy one. `is_sentence` stops each text at the end of its first sentence."""

    num_drawn: int = 0
    temperature: float = 0.7
    top_k: int = 20
    max_new_tokens: int = 32
    is_sentence: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text, and the mean log probability of its tokens, its end included."""

    text: str
    mean_log_probability: float


class _Row:
    """One continuation as it grows."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.total = 0.0
        self.num_scored = 0
        self.has_ended = False


def continue_prompt(
    language_model: LanguageModel, prompt: EncodedPrompt, options: DecodingOptions
) -> Pieces[list[Continuation]]:
    """The greedy continuation first. A piece is a step of all of them."""
    rows = [_Row() for _ in range(1 + options.num_drawn)]
    generator = torch.Generator(language_model.device).manual_seed(options.seed)
    state = language_model.new_state()
    with torch.inference_mode():
        logits = language_model.prefill(prompt, state).expand(len(rows), -1)
        if len(rows) > 1:
            state.cache.batch_repeat_interleave(len(rows))
    room = language_model.max_context_tokens - prompt.num_tokens
    for _ in range(min(options.max_new_tokens, room)):
        with torch.inference_mode():
            chosen = _choose(logits, options, generator)
            _append(language_model, rows, chosen, logits, is_sentence=options.is_sentence)
        if all(row.has_ended for row in rows):
            break
        yield
        if len(rows) == 1:
            logits = language_model.decode(int(chosen[0]), state)[None]
        else:
            logits = language_model.decode_rows(chosen, state)
    return [_finished(language_model, row) for row in rows]


def _choose(logits: Tensor, options: DecodingOptions, generator: torch.Generator) -> Tensor:
    """`logits: (n, v)` → token ids `(n,)`: the likeliest in the first row, a draw in the others."""
    if not bool(logits.isfinite().any(dim=-1).all()):
        raise DeviceError('the model computed no numbers in this format: set engine.dtype = "float32" or "bfloat16"')
    best = logits[:1].argmax(dim=-1)
    if len(logits) == 1:
        return best
    values, ids = logits[1:].topk(min(options.top_k, logits.shape[-1]), dim=-1)
    weights = (values / options.temperature).softmax(dim=-1)
    places = torch.multinomial(weights, 1, generator=generator)
    return torch.cat([best, ids.gather(1, places)[:, 0]])


def _append(
    language_model: LanguageModel, rows: list[_Row], chosen: Tensor, logits: Tensor, *, is_sentence: bool
) -> None:
    log_probabilities = logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0].tolist()
    for row, token, log_probability in zip(rows, chosen.tolist(), log_probabilities, strict=True):
        if row.has_ended:
            continue
        row.total += log_probability
        row.num_scored += 1
        if token in language_model.end_token_ids:
            row.has_ended = True
            continue
        row.tokens.append(token)
        text = _text_of(language_model, row)
        row.has_ended = is_sentence and bool(text.strip()) and text.endswith(SENTENCE_ENDS)


def _text_of(language_model: LanguageModel, row: _Row) -> str:
    return str(language_model.tokenizer.decode(row.tokens, skip_special_tokens=True))


def _finished(language_model: LanguageModel, row: _Row) -> Continuation:
    text = " ".join(_text_of(language_model, row).split())
    return Continuation(text, row.total / max(1, row.num_scored))
