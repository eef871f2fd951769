"""From a request and its reply to an `Explanation` in a person's terms: regions, class names, words, facets.

Owns which turn is explained, what its tokens stand for and how shares are made. Knows neither platforms nor drawing.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from engine.decoder.language_model import LanguageModel
from engine.decoder.prompt import num_turns_to_drop
from engine.encoders.persona import MAX_FACETS
from engine.errors import RequestError
from engine.explaining import Measure
from engine.explaining.influence import Influence, Prefixes, as_plain, attention_of, influence_of, prefixes_of
from engine.explaining.likelihood import ReplyLikelihood
from engine.explaining.occlusion import without_each_region
from engine.explaining.words import words_of
from engine.fusion.model import TurnFeatures
from engine.fusion.pipeline import FusionPipeline
from engine.fusion.types import TurnFuser
from engine.persona import Persona
from engine.types import (
    Explanation,
    FacetShare,
    GenerationRequest,
    RegionShares,
    Role,
    StreamShares,
    TokenShare,
    Turn,
)

# Of a long reply the beginning says enough, and memory grows with its length.
MAX_REPLY_TOKENS = 256
# A kind of part that costs the reply less than this, all together, has no shares: they would be made of rounding.
MIN_NATS = 1e-3

METHODS: dict[Measure, str] = {
    "influence": "Shares: how much less likely the reply's words would be without each part of the fused context "
    "(leave one out; the language model by its gradient). The words of the prompt act beside it and are not counted.",
    "attention": "Shares: where the fusion looked (attention). They do not say what made the reply likely.",
}
OWN_PICTURES = (
    "This language model reads pictures and words by itself, without a fused context, so there are no shares to show."
)
NO_FUSION = (
    "This language model runs without fusion weights: the reply comes from the words of the prompt alone, and there "
    "are no shares to show (docs/training.md says how to train weights)."
)
NO_PREFIX = (
    "No picture was at hand, and such replies come from the words of the prompt alone, without a fused context: there "
    "are no shares to show. Send a picture and ask again."
)


@dataclass(frozen=True, slots=True)
class ExplainedTurn:
    """One fused turn of a request, and the likelihood of the reply as a function of its prefix. `is_answered`: it is
    the turn that the reply answers, so that its steering was at work."""

    turn: Turn
    features: TurnFeatures
    likelihood: ReplyLikelihood
    is_answered: bool

    def prefixes(self, fuser: FusionPipeline) -> Prefixes:
        """The turn's prefix, whole and without each part."""
        pictures = self.turn.images[: len(self.features.images)]
        occluded = [without_each_region(picture.data, fuser.image_encoder) for picture in pictures]
        return prefixes_of(fuser.model, self.features, occluded=occluded, has_steering=self.is_answered)


def explain_reply(
    language_model: LanguageModel,
    fuser: TurnFuser | None,
    request: GenerationRequest,
    reply: str,
    *,
    measure: Measure = "influence",
) -> Explanation:
    """See `engine.explaining.explain`."""
    if language_model.takes_pictures:
        return _nothing(OWN_PICTURES)
    if not isinstance(fuser, FusionPipeline):
        return _nothing(NO_FUSION)
    # The engine fuses in inference mode, whose tensors have no gradient.
    with torch.inference_mode(mode=False), torch.no_grad():
        explained = open_turn(language_model, fuser, request, reply)
        if explained is None:
            return _nothing(NO_PREFIX)
        if measure == "attention":
            influence = attention_of(fuser.model, explained.features)
        else:
            influence = influence_of(explained.prefixes(fuser), explained.likelihood)
        return _explanation(influence, explained, fuser, request.persona, method=METHODS[measure])


def open_turn(
    language_model: LanguageModel, fuser: FusionPipeline, request: GenerationRequest, reply: str
) -> ExplainedTurn | None:
    """The newest turn with pictures that has a prefix, else the newest that has one, else `None`.

    A question about a picture that came a turn earlier is answered from that picture.
    """
    turns = _kept_turns(language_model, fuser, request)
    # What follows words that stand there already begins with the space between them.
    reply = reply.rstrip() if request.reply_start else reply.strip()
    reply_ids = language_model.prompts.tokenise(reply)[:MAX_REPLY_TOKENS]
    if not turns or not reply_ids:
        raise RequestError("there is no reply to explain yet: say something first")
    contexts = {
        index: context
        for index, turn in enumerate(turns)
        if turn.role is Role.USER
        and (context := fuser.fuse(request.persona, turn.text, turn.images)) is not None
    }  # fmt: skip
    if not contexts:
        return None
    place = max(contexts, key=lambda index: (bool(turns[index].images), index))
    pieces = language_model.prompts.write(
        request.system_prompt,
        turns,
        places=contexts,
        reply_start=request.reply_start,
        insertions=request.insertions,
    )
    is_answered = place == len(turns) - 1
    answered = contexts.get(len(turns) - 1)
    likelihood = ReplyLikelihood(
        language_model,
        pieces,
        [contexts[index].prefix for index in pieces.places],
        index=pieces.places.index(place),
        reply_ids=reply_ids,
        steering=None if answered is None else answered.strongest_steering,
        varies_steering=is_answered and bool(contexts[place].steering),
    )
    turn = turns[place]
    features = as_plain(fuser.features(request.persona, turn.text, turn.images), language_model.device)
    return ExplainedTurn(turn, features, likelihood, is_answered)


def _kept_turns(language_model: LanguageModel, fuser: FusionPipeline, request: GenerationRequest) -> tuple[Turn, ...]:
    """The turns that fitted when the reply was made."""

    def num_tokens_without(num_dropped: int) -> int:
        turns = request.turns[num_dropped:]
        num_user_turns = sum(turn.role is Role.USER for turn in turns)
        written = language_model.prompts.write(
            request.system_prompt, turns, reply_start=request.reply_start, insertions=request.insertions
        )
        return written.num_tokens + fuser.num_prefix_tokens * num_user_turns

    limit = language_model.max_context_tokens
    max_tokens = limit - min(request.sampling.max_new_tokens, limit // 2)
    return request.turns[num_turns_to_drop(request.turns, num_tokens_without, max_tokens=max_tokens) :]


def _nothing(method: str) -> Explanation:
    return Explanation((), (), (), (), StreamShares(0.0, 0.0, 0.0), method, has_prefix=False)


def _explanation(
    influence: Influence, explained: ExplainedTurn, fuser: FusionPipeline, persona: Persona, *, method: str
) -> Explanation:
    images = explained.features.images
    class_ids = [int(number) for image in images for number in image.concept_ids]
    return Explanation(
        regions=_regions(influence.parts["regions"], num_images=len(images)),
        concepts=_concepts(influence.parts["concepts"], class_ids, fuser),
        words=_words(influence.parts["words"], explained.turn.text, fuser),
        facets=_facets(influence.parts["facets"], persona),
        stream_shares=StreamShares(**dict(zip(influence.streams, _shares(influence.streams.values()), strict=True))),
        method=method,
        has_prefix=True,
    )


def _shares(drops: Iterable[float]) -> list[float]:
    """What helped, as parts of 1; what did not help has none."""
    helped = [max(0.0, drop) for drop in drops]
    total = sum(helped)
    return [one / total if total >= MIN_NATS else 0.0 for one in helped]


def _regions(drops: Tensor, *, num_images: int) -> tuple[RegionShares, ...]:
    """Every picture has as many regions, in a square."""
    shares = _shares(drops.tolist())
    size = len(shares) // max(1, num_images)
    side = isqrt(size)
    return tuple(
        RegionShares(number, side, side, tuple(shares[number * size : (number + 1) * size]))
        for number in range(num_images)
    )


def _concepts(drops: Tensor, class_ids: Sequence[int], fuser: FusionPipeline) -> tuple[TokenShare, ...]:
    """The likeliest first; a class that several pictures show counts once."""
    by_name: defaultdict[str, float] = defaultdict(float)
    for number, drop in zip(class_ids, drops.tolist(), strict=True):
        by_name[fuser.class_names[number] if number < len(fuser.class_names) else f"class {number}"] += drop
    return _token_shares(list(by_name), list(by_name.values()))


def _words(drops: Tensor, text: str, fuser: FusionPipeline) -> tuple[TokenShare, ...]:
    words = words_of(text, fuser.text_encoder.tokenizer.encode(text))
    return _token_shares([word.text for word in words], [float(drops[list(word.rows)].sum()) for word in words])


def _token_shares(names: Sequence[str], drops: Sequence[float]) -> tuple[TokenShare, ...]:
    return tuple(TokenShare(name, share) for name, share in zip(names, _shares(drops), strict=True))


def _facets(drops: Tensor, persona: Persona) -> tuple[FacetShare, ...]:
    facets = list(persona.facets())[:MAX_FACETS]
    return tuple(
        FacetShare(facet.kind, facet.text, share) for facet, share in zip(facets, _shares(drops.tolist()), strict=True)
    )
