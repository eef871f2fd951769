from collections import Counter
from random import Random

import pytest
import torch

from engine.errors import ConfigurationError
from engine.training.characters import characters, describe
from engine.training.datasets import PersonaDialogue
from engine.training.samples import PersonaSamples, dialogue_sample, exclaim, thing_in, with_article
from engine.types import Role
from tests.engine.fusion.tiny import NAMES
from tests.engine.training.tiny import TURNS, persona_samples, picture_samples


@pytest.mark.parametrize(
    ("thing", "phrase"),
    [
        ("dog", "a dog"),
        ("apple", "an apple"),
        ("an anchor", "an anchor"),
        ("scissors", "scissors"),
        ("glass", "a glass"),
        ("octopus", "an octopus"),
        ("pair of shoes", "a pair of shoes"),
        ("windsor chair", "a windsor chair"),
        ("a dog and a cat", "a dog and a cat"),
    ],
)
def test_things_get_their_article(thing: str, phrase: str) -> None:
    assert with_article(thing) == phrase


def test_captions_give_their_thing() -> None:
    assert thing_in("a photo of an anchor") == "anchor"
    assert thing_in("a 3D emoji sticker: hotel") == "hotel"


def test_exclamations_are_filled() -> None:
    assert exclaim("{A}! Such {a}, my {thing}.", "apple") == "An apple! Such an apple, my apple."
    assert exclaim("What a {thing}!", "a dog and a cat") == "What a dog and a cat!"


def test_a_sample_depends_on_seed_and_number_alone() -> None:
    one, same, other = picture_samples(), picture_samples(), picture_samples(seed=1)
    forwards = [one.draw(j) for j in range(40)]
    backwards = [same.draw(j) for j in reversed(range(40))]
    assert [s.reply for s in forwards] == [s.reply for s in reversed(backwards)]
    assert [s.reply for s in forwards] != [other.draw(j).reply for j in range(40)]


def test_kinds_come_in_their_shares() -> None:
    kinds = Counter(picture_samples(shares={"concepts": 0.5, "things": 0.5}).draw(j).kind for j in range(200))
    assert set(kinds) == {"concepts", "things"}
    assert 60 < kinds["concepts"] < 140


def test_a_concept_sample_names_its_likeliest_class() -> None:
    samples = picture_samples(shares={"concepts": 1.0})
    for sample in (samples.draw(j) for j in range(60)):
        for image, class_id in zip(sample.images, sample.class_ids, strict=True):
            assert image.concept_ids[0] == class_id
            assert len(set(image.concept_ids.tolist())) == len(image.concept_ids)
            assert image.patches.shape == (0, 1280)
        assert sample.focus.casefold() in sample.reply.casefold()
        assert not sample.has_end


def test_classes_that_are_kept_back_are_never_the_answer() -> None:
    samples = picture_samples(shares={"concepts": 1.0})
    assert all(class_id >= 300 for j in range(100) for class_id in samples.draw(j).class_ids)


def test_a_kind_word_stands_for_its_classes() -> None:
    samples = picture_samples(shares={"concepts": 1.0})
    samples._concepts.class_ids = (207,)  # a golden retriever
    focuses = Counter(samples.draw(j).focus for j in range(60))
    assert focuses["dog"] > 5
    assert focuses[NAMES[207]] > 5


def test_a_picture_looks_different_each_time() -> None:
    """Some of its patches or none, and its concepts more or less sure, but the same concepts in the same order."""
    samples = picture_samples(shares={"scenes": 1.0}, patch_dropout=0.4)
    images = [samples.draw(j).images[0] for j in range(60)]
    sizes = Counter(len(image.patches) for image in images)
    assert set(sizes) == {0, 2, 3, 4}
    assert 10 < sizes[0] < 40
    assert len({tuple(image.concept_weights.tolist()) for image in images}) > 50
    for image in images:
        assert torch.equal(image.concept_ids, images[0].concept_ids)
        assert torch.equal(image.concept_weights.sort(descending=True).values, image.concept_weights)
        assert image.concept_weights.sum().item() == pytest.approx(1, abs=1e-3)


def test_pictures_are_shown_in_the_last_turn_of_the_user() -> None:
    samples = picture_samples(shares={"things": 0.5, "scenes": 0.5})
    samples = [samples.draw(j) for j in range(200)]
    assert all(sample.turns[-1].role is Role.USER for sample in samples)
    assert {len(sample.turns) for sample in samples} == {1, 3}
    assert any(not sample.turns[-1].text for sample in samples)


def test_a_dialogue_tells_the_prompt_less_than_the_persona_stream() -> None:
    turns = ((0, "Hi!"), (1, "Hello!"), (1, "And you?"), (0, "word " * 40))
    dialogue = PersonaDialogue((("I ski.",), ("I cook.", "I am six.", "I sing.")), turns)
    for number in range(10):
        sample = dialogue_sample(dialogue, Random(number), num_told=1)
        assert sample.reply == "Hello!"  # the only short answer to somebody else
        assert sample.turns[0].text == "Hi!"
        assert sample.facets == ("I cook.", "I am six.", "I sing.")
        assert sum(facet in sample.system_prompt for facet in sample.facets) == 1


def test_scenes_are_described_and_shown_to_personas() -> None:
    samples = [picture_samples(shares={"scenes": 1.0}).draw(j) for j in range(40)]
    kinds = Counter(sample.kind for sample in samples)
    assert set(kinds) == {"captions", "scenes"}
    described = [sample for sample in samples if sample.kind == "captions"]
    assert {sample.reply for sample in described} == {"A dog on a bed."}
    assert not any(sample.facets for sample in described)


def test_a_style_is_told_apart_from_every_other() -> None:
    """The same words and the same reply, the right persona first."""
    samples = persona_samples(share_styled=1.0)
    answers = {"witty": "Ha", "friendly": "Hello", "professional": "Good day"}
    for group in (samples.draw(j) for j in range(20)):
        assert len({sample.reply for sample in group}) == 1
        styles = [next(style for style in answers if style in sample.facets[0]) for sample in group]
        assert sorted(styles) == sorted(answers)
        assert answers[styles[0]] == group[0].reply


def test_a_dialogue_is_compared_with_a_stranger() -> None:
    groups = [persona_samples(share_styled=0.0).draw(j) for j in range(30)]
    assert all(group[0].reply in {words for _, words in TURNS} for group in groups)
    pairs = [group for group in groups if len(group) == 2]
    assert pairs
    assert all(right.facets != wrong.facets and right.reply == wrong.reply for right, wrong in pairs)


def test_conversations_are_learnt_from_too() -> None:
    samples = persona_samples(share_styled=0.0, has_conversations=True)
    kinds = Counter(samples.draw(j)[0].kind for j in range(60))
    assert set(kinds) == {"dialogues", "conversations"}


def test_persona_samples_depend_on_seed_and_number_alone() -> None:
    one, same, other = persona_samples(), persona_samples(), persona_samples(seed=1)
    forwards = [one.draw(j) for j in range(20)]
    assert forwards == [same.draw(j) for j in reversed(range(20))][::-1]
    assert forwards != [other.draw(j) for j in range(20)]


def test_nobody_to_learn_from_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="dialogues or styled answers"):
        PersonaSamples(seed=0, answers=[], dialogues=[])


def test_characters_are_unlike_each_other_and_filled_in() -> None:
    everybody = characters()
    assert len({one.persona.name for one in everybody}) == len(everybody) >= 20
    assert all("{" not in describe(one.persona) for one in everybody)
    assert all("{a}" in line or "{A}" in line or "{thing}" in line for one in everybody for line in one.exclamations)


def test_samples_hold_finite_features() -> None:
    samples = picture_samples()
    for sample in (samples.draw(j) for j in range(40)):
        assert all(torch.isfinite(image.patches).all() and image.concept_weights.sum() > 0.9 for image in sample.images)
