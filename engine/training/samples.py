"""What the fusion learns to say: endless samples, drawn from the data sets by a seed.

`PictureSamples` are of three kinds. *Concepts*: no picture at all, only concept words of a class with plausible others
beside it, so that every class of the image encoder is met, also those that no picture set has. *Things*: photos whose
caption names one thing. *Scenes*: photos with human captions. Some are shown to a persona, some are simply to be
described. `PersonaSamples` have no picture: a reply by somebody of whom the persona stream knows more than the
prompt, and others who would not say that. Sample `j` of a run depends on the seed and `j` alone, so that a resumed
run goes on as if it had never stopped. Knows neither the fusion nor the language model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from engine.encoders.types import ImageFeatures
from engine.errors import ConfigurationError
from engine.persona import Persona
from engine.seeing.instructions import CAPTION_REQUEST, CAPTION_SYSTEM_PROMPT
from engine.training.characters import (
    HISTORIES,
    PLAIN_EXCLAMATIONS,
    SCENE_REPLIES,
    SHOWING_LINES,
    Character,
    characters,
    describe,
    describe_person,
)
from engine.training.datasets import CaptionedPicture, Conversation, PersonaDialogue, StyledAnswers
from engine.training.features import FeatureSet
from engine.types import Role, Turn

NUM_NEIGHBOURS = 12
# Long lines cost most of a batch's time, and teach no more than short ones.
MAX_DIALOGUE_WORDS = 16
# How often a photo is to be described by nobody in particular, rather than shown to a persona.
SHARE_DESCRIBED = 0.5
# A few hundred photos are learnt by heart unless they look different each time.
MIN_PATCHES, CONCEPT_SHARPNESS = 0.5, (0.7, 1.4)
STYLED_PROMPT = "You are talking with a friend. Answer in one short sentence."
_TEMPLATE = re.compile(r"^(?:a photo of|a 3D emoji sticker:) (?:(?:a|an|the) )?", re.IGNORECASE)
# Runs of ImageNet classes that people call by one word.
_KINDS: tuple[tuple[range, str], ...] = (
    (range(2, 5), "shark"), (range(7, 25), "bird"), (range(30, 33), "frog"), (range(33, 38), "turtle"),
    (range(38, 49), "lizard"), (range(52, 69), "snake"), (range(72, 78), "spider"), (range(80, 101), "bird"),
    (range(127, 147), "bird"), (range(151, 269), "dog"), (range(269, 273), "wolf"), (range(277, 281), "fox"),
    (range(281, 286), "cat"), (range(294, 298), "bear"), (range(300, 308), "beetle"), (range(321, 327), "butterfly"),
    (range(330, 333), "rabbit"), (range(369, 383), "monkey"), (range(385, 387), "elephant"),
)  # fmt: skip
_KIND_OF = {number: word for numbers, word in _KINDS for number in numbers} | dict.fromkeys(
    (436, 468, 511, 609, 656, 661, 717, 751, 817), "car"
)


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One reply to learn. `facets` are what the persona encoder reads; `focus` is the part of the reply that names
    what is seen. A reply without `has_end` may go on: how long to talk is the persona's affair. With `class_ids`
    the sample is about those of the image encoder's classes."""

    kind: str
    system_prompt: str
    facets: tuple[str, ...]
    turns: tuple[Turn, ...]
    images: tuple[ImageFeatures, ...]
    reply: str
    has_end: bool = True
    focus: str = ""
    class_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PictureSource:
    """Rows of a picture set with their features. `share` is how often it is drawn, beside the other sources."""

    pictures: tuple[CaptionedPicture, ...]
    features: FeatureSet
    rows: tuple[int, ...]
    share: float


def with_article(thing: str) -> str:
    """ "apple" → "an apple"; what has an article, is plural or a mass keeps its form."""
    if re.match(r"(?:a|an|the|some|two|three) ", thing, re.IGNORECASE):
        return thing
    if re.search(r"(?:[^s]s|\b(?:men|women|people|hair|bread|food|water|sand|clothing))$", thing) and not re.match(
        r"pair of |person |.*us$", thing
    ):
        return thing
    return f"{'an' if thing[:1].lower() in 'aeiou' else 'a'} {thing}"


def thing_in(caption: str) -> str:
    """The bare thing that a template caption names: "a photo of an anchor" → "anchor"."""
    return _TEMPLATE.sub("", caption).strip()


def exclaim(template: str, thing: str) -> str:
    """Fill `{a}`, `{A}` and `{thing}`. Two things at once, "a dog and a cat", bring their articles along."""
    phrase = with_article(thing)
    if phrase == thing and " and " in thing:
        template = re.sub(r"\b(?:a|the|this) \{thing\}", "{thing}", template)
    return template.format(a=phrase, A=phrase[:1].upper() + phrase[1:], thing=thing)


class ConceptSource:
    """Classes as the image encoder might report them."""

    def __init__(self, names: Sequence[str], meanings: Tensor, *, class_ids: Sequence[int]) -> None:
        """`meanings: (num_classes, d_t)`; samples are drawn from `class_ids`."""
        self.names = tuple(names)
        self.class_ids = tuple(class_ids)
        self._neighbours = (meanings @ meanings.T).topk(NUM_NEIGHBOURS + 1, dim=-1).indices[:, 1:].tolist()

    def draw(self, chance: Random, *, weights: Tensor, num_patches_width: int) -> tuple[ImageFeatures, str, int]:
        """Features without patches, what people would call the thing, and its class. `weights: (n_c,)` is a real
        picture's profile."""
        target = chance.choice(self.class_ids)
        kind = _KIND_OF.get(target)
        is_general = kind is not None and chance.random() < 0.45
        others = self._others(target, chance, num_others=len(weights) - 1, kind=kind if is_general else None)
        features = ImageFeatures(torch.zeros(0, num_patches_width), torch.tensor([target, *others]), weights)
        return features, kind if is_general and kind is not None else self.names[target], target

    def _others(self, target: int, chance: Random, *, num_others: int, kind: str | None) -> list[int]:
        """What else the encoder takes the thing for: like things, of its kind where that is known, and noise."""
        alike = list(self._neighbours[target])
        if kind is not None:
            alike += [number for number, word in _KIND_OF.items() if word == kind and number != target]
        others: list[int] = []
        while len(others) < num_others:
            other = chance.choice(alike) if chance.random() < 0.6 else chance.randrange(len(self.names))
            if other != target and other not in others:
                others.append(other)
        return others


class PictureSamples:
    """Draws replies to pictures."""

    def __init__(
        self,
        *,
        seed: int,
        concepts: ConceptSource,
        things: Sequence[PictureSource],
        scenes: Sequence[PictureSource],
        shares: Mapping[str, float],
        patch_dropout: float = 0.3,
    ) -> None:
        """`shares` says how often each kind is drawn: `concepts`, `things`, `scenes`; a kind without sources never."""
        self._seed = seed
        self._concepts = concepts
        self._things = tuple(things)
        self._scenes = tuple(scenes)
        has_sources = {"concepts": bool(things or scenes), "things": bool(things), "scenes": bool(scenes)}
        self._shares = {kind: share for kind, share in shares.items() if has_sources[kind]}
        self._patch_dropout = patch_dropout
        self._characters = characters()

    def draw(self, index: int) -> TrainingSample:
        """Sample number `index` of this seed."""
        chance = Random(f"{self._seed}/{index}")  # noqa: S311 - chance, not secrecy
        (kind,) = chance.choices(list(self._shares), weights=list(self._shares.values()))
        character = chance.choice(self._characters)
        if kind == "concepts":
            return self._concept(chance, character)
        if kind == "things":
            return self._thing(chance, character)
        return self._scene(chance, character.persona)

    def _concept(self, chance: Random, character: Character) -> TrainingSample:
        width = self._any_source().features.patches.shape[-1]
        drawn = [
            self._concepts.draw(chance, weights=self._profile(chance), num_patches_width=width)
            for _ in range(2 if chance.random() < 0.06 else 1)
        ]
        thing = " and ".join(with_article(name) if len(drawn) > 1 else name for _, name, _ in drawn)
        images = tuple(features for features, _, _ in drawn)
        classes = tuple(number for _, _, number in drawn)
        reply = self._reply(chance, character, thing)
        return self._shown(chance, character.persona, images, reply, thing, "concepts", classes)

    def _reply(self, chance: Random, character: Character, thing: str) -> str:
        """Plain words or the character's own, and now and then something added."""
        is_plain = chance.random() < 0.45
        reply = exclaim(chance.choice(PLAIN_EXCLAMATIONS if is_plain else character.exclamations), thing)
        if chance.random() < 0.4:
            reply = f"{reply} {exclaim(chance.choice(character.additions), thing)}"
        return reply

    def _any_source(self) -> PictureSource:
        return (self._things or self._scenes)[0]

    def _profile(self, chance: Random) -> Tensor:
        source = chance.choice(self._things or self._scenes)
        return source.features.row(chance.choice(source.rows)).concept_weights

    def _thing(self, chance: Random, character: Character) -> TrainingSample:
        source, row = draw_row(self._things, chance)
        thing = thing_in(chance.choice(source.pictures[row].captions))
        images = (self._vary(source.features.row(row), chance),)
        return self._shown(chance, character.persona, images, self._reply(chance, character, thing), thing, "things")

    def _scene(self, chance: Random, persona: Persona) -> TrainingSample:
        source, row = draw_row(self._scenes, chance)
        scene = " ".join(chance.choice(source.pictures[row].captions).split()).rstrip(". ")
        scene = scene[:1].upper() + scene[1:]
        image = self._vary(source.features.row(row), chance)
        if chance.random() < SHARE_DESCRIBED:
            return caption_sample(f"{scene}.", image)
        template = chance.choice(SCENE_REPLIES)
        reply = template.format(scene=scene, scene_lower=scene[:1].lower() + scene[1:])
        return self._shown(chance, persona, (image,), reply, "", "scenes")

    def _vary(self, image: ImageFeatures, chance: Random) -> ImageFeatures:
        """The picture as it might have been: some of its patches, other doubts about its concepts. Concept words must
        do alone, too: concepts without pictures are met that way."""
        weights = image.concept_weights ** chance.uniform(*CONCEPT_SHARPNESS)
        weights = weights / weights.sum()
        num_patches = len(image.patches)
        num_kept = 0
        if chance.random() >= self._patch_dropout:
            num_kept = max(1, round(num_patches * chance.uniform(MIN_PATCHES, 1)))
        kept = sorted(chance.sample(range(num_patches), num_kept))
        return ImageFeatures(image.patches[kept], image.concept_ids, weights)

    def _shown(
        self,
        chance: Random,
        persona: Persona,
        images: tuple[ImageFeatures, ...],
        reply: str,
        focus: str,
        kind: str,
        class_ids: tuple[int, ...] = (),
    ) -> TrainingSample:
        words = Turn(Role.USER, chance.choice(SHOWING_LINES))
        history: tuple[Turn, ...] = ()
        if chance.random() < 0.25:
            said, answered = chance.choice(HISTORIES)
            history = (Turn(Role.USER, said), Turn(Role.ASSISTANT, answered))
        facets = tuple(facet.text for facet in persona.facets())
        prompt = describe(persona)
        return TrainingSample(kind, prompt, facets, (*history, words), images, reply, False, focus, class_ids)


def draw_row(sources: Sequence[PictureSource], chance: Random) -> tuple[PictureSource, int]:
    """A source by its share, and one of its rows."""
    (source,) = chance.choices(sources, weights=[source.share for source in sources])
    return source, chance.choice(source.rows)


def caption_sample(caption: str, image: ImageFeatures) -> TrainingSample:
    """A picture described by nobody in particular."""
    asked = (Turn(Role.USER, CAPTION_REQUEST),)
    return TrainingSample("captions", CAPTION_SYSTEM_PROMPT, (), asked, (image,), caption)


class PersonaSamples:
    """Draws replies of personas, each with the same line said to others who would not answer that."""

    def __init__(
        self,
        *,
        seed: int,
        answers: Sequence[StyledAnswers],
        dialogues: Sequence[PersonaDialogue],
        conversations: Sequence[Conversation] = (),
        shown: Mapping[str, ImageFeatures] | None = None,
        share_styled: float = 0.6,
    ) -> None:
        """`shown` has the pictures of conversations by digest. `share_styled` is how often one of `answers` is drawn,
        where there are dialogues as well."""
        self._seed = seed
        self._answers = tuple(answers)
        self._dialogues = tuple(dialogues)
        self._conversations = tuple(one for one in conversations if one.persona)
        self._shown = shown or {}
        self._share_styled = share_styled
        if not (self._answers or self._dialogues or self._conversations):
            raise ConfigurationError(
                "there is nobody to learn a persona from: the data needs dialogues or styled answers "
                "(docs/training.md shows the layouts)"
            )

    def draw(self, index: int) -> tuple[TrainingSample, ...]:
        """Sample number `index` of this seed: the right persona first, then others with the same words and reply."""
        chance = Random(f"{self._seed}/persona/{index}")  # noqa: S311 - chance, not secrecy
        has_others = bool(self._dialogues or self._conversations)
        if self._answers and (not has_others or chance.random() < self._share_styled):
            answers = chance.choice(self._answers)
            right = chance.choice(sorted(answers.answers))
            reply = answers.answers[right]
            others = sorted(set(answers.answers) - {right})
            return tuple(styled_sample(answers, style, reply=reply) for style in (right, *others))
        if self._dialogues and (not self._conversations or chance.random() < 0.5):
            sample = dialogue_sample(chance.choice(self._dialogues), chance)
            stranger = chance.choice(chance.choice(self._dialogues).personas)
        else:
            sample = conversation_sample(chance.choice(self._conversations), chance, shown=self._shown)
            stranger = chance.choice(self._conversations).persona
        return (sample, replace(sample, facets=stranger)) if stranger != sample.facets else (sample,)


def styled_sample(answers: StyledAnswers, style: str, *, reply: str | None = None) -> TrainingSample:
    """A line answered in one style, which only the persona stream knows. With `reply`, that is the answer."""
    facets = (f"I am {style}.", f"My voice is {style}.")
    asked = (Turn(Role.USER, answers.user),)
    return TrainingSample("styles", STYLED_PROMPT, facets, asked, (), reply or answers.answers[style])


def dialogue_sample(dialogue: PersonaDialogue, chance: Random, *, num_told: int | None = None) -> TrainingSample:
    """A turn of a dialogue. The prompt tells at most two sentences of the speaker, the persona stream has them all."""
    turns = dialogue.turns
    places = [j for j in range(1, len(turns)) if turns[j][0] != turns[j - 1][0] and _is_short(turns[j - 1 : j + 1])]
    place = chance.choice(places) if places else 0
    speaker, reply = dialogue.turns[place]
    facets = dialogue.personas[speaker]
    told = chance.sample(facets, min(len(facets), chance.randint(0, 2) if num_told is None else num_told))
    words = dialogue.turns[place - 1][1] if place else "Hello!"
    prompt = describe_person(tuple(told))
    return TrainingSample("dialogues", prompt, facets, (Turn(Role.USER, words),), (), reply)


def conversation_sample(
    conversation: Conversation, chance: Random, *, shown: Mapping[str, ImageFeatures]
) -> TrainingSample:
    """A reply of a conversation, with what was said and shown before it."""
    places = [j for j, turn in enumerate(conversation.turns) if turn.role is Role.ASSISTANT and j]
    place = chance.choice(places) if places else 0
    said = conversation.turns[:place] or (Turn(Role.USER, "Hello!"),)
    told = chance.sample(conversation.persona, min(len(conversation.persona), chance.randint(0, 2)))
    prompt = describe_person(tuple(told))
    reply = conversation.turns[place].text
    image = shown.get(conversation.picture or "")
    images = () if image is None else (image,)
    return TrainingSample("conversations", prompt, conversation.persona, said, images, reply)


def _is_short(turns: Sequence[tuple[int, str]]) -> bool:
    return all(len(words.split()) <= MAX_DIALOGUE_WORDS for _, words in turns)
