"""The jobs that `engine.service` does on its thread beside replies, one generator each.

Owns which way a job goes: a vision-language model is asked itself, the default stack uses its matching head, and what
the loaded weights cannot do is refused with `NotAvailable`. Knows neither threads nor conversations.
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from engine.decoder.language_model import LanguageModel
from engine.device import is_out_of_memory
from engine.encoders.types import ImageFeatures
from engine.errors import DeviceError, NotAvailable
from engine.fusion.types import TurnFuser
from engine.seeing import asking, translating
from engine.seeing.captioning import caption_in_pieces
from engine.seeing.eye import Eye, Fuser
from engine.seeing.questions import is_beyond, thing_asked_for, with_article
from engine.seeing.work import Pieces
from engine.types import Embedding, Explanation, GenerationRequest, Image, Sight, Translation

P = ParamSpec("P")
T = TypeVar("T")

BLIND = (
    "I cannot see pictures: the language model that runs me has no eyes, and no fusion weights were trained for it. "
    "Whoever runs me can name a vision-language model (docs/models.md) or train fusion weights (docs/training.md)."
)
NO_MEMORY = (
    "the device ran out of memory over a picture: name a smaller model as engine.decoder, or end other programs on it"
)
UNSURE_BELOW = 0.5
UNSURE_YES_OR_NO_BELOW = 0.65

# Kept, for it takes a moment to name the space of one's embeddings.
_EYES: WeakKeyDictionary[Fuser, Eye] = WeakKeyDictionary()


class Loaded(Protocol):
    """What is needed of `engine.generation.loop.GenerationLoop`."""

    @property
    def language_model(self) -> LanguageModel: ...
    @property
    def fuser(self) -> TurnFuser | None: ...


def _with_remedies(job: Callable[P, Pieces[T]]) -> Callable[P, Pieces[T]]:
    """`job`, with memory that ran out told in words that help."""

    @wraps(job)
    def run(*args: P.args, **kwargs: P.kwargs) -> Pieces[T]:
        try:
            return (yield from job(*args, **kwargs))
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise DeviceError(NO_MEMORY) from error
            raise

    return run


@_with_remedies
def describe(loaded: Loaded, image: Image, *, question: str | None, language: str | None) -> Pieces[Sight]:
    """What `image` shows, or the answer to `question` about it."""
    if loaded.language_model.takes_pictures:
        return (yield from asking.ask(loaded.language_model, image, question=question, language=language))
    fuser, eye = _fuser_of(loaded), _eye_of(loaded)
    if eye.model.is_untrained and not eye.can_match:
        raise NotAvailable(BLIND)
    (features,) = fuser.encode_images((image,))
    yield
    thing = thing_asked_for(question) if question else None
    if thing is not None and eye.can_match:
        ((match,),) = yield from eye.match([features], [with_article(thing)])
        return _yes_or_no(thing, match)
    found = yield from caption_in_pieces(loaded.language_model, eye, features, question=question)
    confidence = found.match if found.match is not None else math.exp(found.mean_log_probability)
    return _sight(found.text, confidence, is_beyond=question is not None and is_beyond(question))


@_with_remedies
def space(loaded: Loaded) -> Pieces[str]:
    """The space in which embeddings are made now."""
    eye = _eye_of(loaded)
    eye.require_matching()
    yield
    return eye.space


@_with_remedies
def embed_images(loaded: Loaded, images: Sequence[Image]) -> Pieces[tuple[Embedding, ...]]:
    """Each picture's embedding, a picture a piece."""
    fuser, eye = _fuser_of(loaded), _eye_of(loaded)
    eye.require_matching()
    embeddings: list[Embedding] = []
    for image in images:
        embeddings += eye.embed_images(fuser.encode_images((image,)))
        yield
    return tuple(embeddings)


@_with_remedies
def embed_text(loaded: Loaded, text: str) -> Pieces[Embedding]:
    """The embedding of a description."""
    eye = _eye_of(loaded)
    yield
    return eye.embed_text(text)


@_with_remedies
def match(loaded: Loaded, text: str, images: Sequence[Image]) -> Pieces[tuple[float, ...]]:
    """How well the description fits each picture."""
    if loaded.language_model.takes_pictures:
        return (yield from _ask_of_each(loaded.language_model, text, images))
    fuser, eye = _fuser_of(loaded), _eye_of(loaded)
    eye.require_matching()
    features: list[ImageFeatures] = []
    for image in images:
        features += fuser.encode_images((image,))
        yield
    matches = yield from eye.match(features, [text])
    return tuple(match for (match,) in matches)


@_with_remedies
def translate(loaded: Loaded, text: str, *, language: str, images: tuple[Image, ...]) -> Pieces[Translation]:
    """`text` in `language`."""
    return (
        yield from translating.translate(loaded.language_model, loaded.fuser, text, language=language, images=images)
    )


@_with_remedies
def explain(loaded: Loaded, request: GenerationRequest, reply: str) -> Pieces[Explanation]:
    """What `reply`, the answer to `request`, was made of."""
    from engine.explaining import explain as explain_reply

    yield
    explanation: Explanation = explain_reply(loaded.language_model, loaded.fuser, request, reply)
    return explanation


def _ask_of_each(language_model: LanguageModel, text: str, images: Sequence[Image]) -> Pieces[tuple[float, ...]]:
    matches = []
    for image in images:
        matches.append(asking.fits(language_model, image, text))
        yield
    return tuple(matches)


def _yes_or_no(thing: str, match: float) -> Sight:
    confidence = max(match, 1 - match)
    if confidence < UNSURE_YES_OR_NO_BELOW:
        return Sight(f"I am not sure whether there is any {thing}.", confidence, is_unsure=True)
    text = f"Yes, I think I see: {thing}." if match >= 0.5 else f"No, I do not see: {thing}."
    return Sight(text, confidence, is_unsure=False)


def _sight(text: str, confidence: float, *, is_beyond: bool) -> Sight:
    """`text`, with doubt in front where there is some."""
    if is_beyond:
        return Sight(f"I cannot see that well. My guess: {text}", min(confidence, UNSURE_BELOW), is_unsure=True)
    if confidence < UNSURE_BELOW:
        return Sight(f"I am not sure, but it may show this: {text}", confidence, is_unsure=True)
    return Sight(text, confidence, is_unsure=False)


def _fuser_of(loaded: Loaded) -> Fuser:
    if loaded.fuser is None:
        raise NotAvailable(BLIND)
    return cast(Fuser, loaded.fuser)


def _eye_of(loaded: Loaded) -> Eye:
    fuser = _fuser_of(loaded)
    if fuser not in _EYES:
        _EYES[fuser] = Eye(fuser.model, fuser.text_encoder)
    return _EYES[fuser]
