"""Says what a picture shows, in one sentence: used by `/describe` and measured by `commedia eval`.

Owns the prompt, the choice among several candidates, and how sure it may be. The language model proposes, from the
fused prefix of the picture alone; the matching head, which knows more of pictures and nothing of grammar, disposes.
Knows neither conversations nor personas.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from engine.decoder.language_model import EncodedPrompt, LanguageModel
from engine.encoders.types import ImageFeatures
from engine.fusion.model import TurnFeatures
from engine.seeing.decoding import Continuation, DecodingOptions, continue_prompt
from engine.seeing.eye import Eye
from engine.seeing.instructions import CAPTION_REQUEST, CAPTION_SYSTEM_PROMPT
from engine.seeing.work import Pieces, finish
from engine.types import Role, Turn


@dataclass(frozen=True, slots=True)
class CaptionOptions:
    """How captions are made. `match_weight` is what the log odds of a match count beside the mean log probability of a
    token."""

    decoding: DecodingOptions = field(default_factory=lambda: DecodingOptions(num_drawn=7))
    match_weight: float = 0.25


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence about a picture. `match` is how likely it is to fit the picture, `None` where nothing could tell."""

    text: str
    mean_log_probability: float
    match: float | None


def caption(
    language_model: LanguageModel,
    eye: Eye,
    features: ImageFeatures,
    *,
    question: str | None = None,
    options: CaptionOptions | None = None,
) -> Caption:
    """One picture's caption, or the answer to `question` about it. The same picture gives the same caption."""
    return finish(caption_in_pieces(language_model, eye, features, question=question, options=options))


def caption_in_pieces(
    language_model: LanguageModel,
    eye: Eye,
    features: ImageFeatures,
    *,
    question: str | None = None,
    options: CaptionOptions | None = None,
) -> Pieces[Caption]:
    """Like `caption`, with pauses."""
    options = options or CaptionOptions()
    prompt = picture_prompt(language_model, eye, features, question or CAPTION_REQUEST)
    proposed = yield from continue_prompt(language_model, prompt, options.decoding)
    candidates = _distinct(proposed)
    if not eye.can_match:
        return Caption(candidates[0].text, candidates[0].mean_log_probability, None)
    (matches,) = yield from eye.match([features], [candidate.text for candidate in candidates])
    scored = [
        (candidate.mean_log_probability + options.match_weight * _log_odds(match), candidate, match)
        for candidate, match in zip(candidates, matches, strict=True)
    ]
    _, best, match = max(scored, key=lambda one: one[0])
    return Caption(best.text, best.mean_log_probability, match)


@torch.inference_mode()
def picture_prompt(language_model: LanguageModel, eye: Eye, features: ImageFeatures, words: str) -> EncodedPrompt:
    """`words` about one picture, to nobody in particular: with the fused prefix where the weights are trained."""
    turn = Turn(Role.USER, words)
    if eye.model.is_untrained or not language_model.takes_prefix:
        return language_model.encode(language_model.prompts.write(CAPTION_SYSTEM_PROMPT, [turn]))
    nobody = eye.model.meanings[:0]
    fused = eye.model([TurnFeatures(images=(features,), text=eye.read(words), persona=nobody)])
    prefix = fused.prefixes[0][0].to(language_model.device, language_model.dtype)
    pieces = language_model.prompts.write(CAPTION_SYSTEM_PROMPT, [turn], places=[0])
    return language_model.encode(pieces, [prefix], steering=fused.steering[0][0] if fused.steering else None)


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-9), 1 - 1e-9)
    return math.log(bounded / (1 - bounded))


def _distinct(proposed: Sequence[Continuation]) -> list[Continuation]:
    """Each text once, without empty ones; the greedy one stays first."""
    by_text = {one.text.casefold(): one for one in reversed(proposed) if one.text}
    distinct = [by_text[key] for key in dict.fromkeys(one.text.casefold() for one in proposed if one.text)]
    return distinct or [Continuation("a picture", proposed[0].mean_log_probability)]
