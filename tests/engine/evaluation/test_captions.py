import pytest
from sacrebleu.metrics.bleu import BLEU

from engine.evaluation.captions import GREEDY, SYSTEM, bleu, cider_scores, measure_captions, nearest_captions, tokenise
from engine.evaluation.figures import Bootstrap
from engine.evaluation.subject import Subject
from tests.engine.evaluation.tiny import seen_pictures, tiny_subject

SAID = ["a dog runs on green grass", "a man is riding a red bike", "two cats"]
KNOWN = [
    ("A dog runs on the grass.", "A brown dog runs fast on green grass!"),
    ("A man is riding a bike.", "Somebody rides a red bike in the city"),
    ("A plate of food on a table.", "Pizza and beer, on a table"),
]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man, on a BIKE.", "a man on a bike"),
        ("The dog's ball isn't here!", "the dog 's ball is n't here"),
        ("well-known  café\n", "well known café"),
    ],
)
def test_texts_are_compared_without_case_and_punctuation(text: str, tokens: str) -> None:
    assert tokenise(text) == tokens


def test_bleu_is_that_of_the_library() -> None:
    found = bleu(SAID, KNOWN, bootstrap=Bootstrap())
    references = [[tokenise(known[j]) for known in KNOWN] for j in range(2)]
    expected = BLEU(tokenize="none").corpus_score([tokenise(text) for text in SAID], references).score
    assert found.value == pytest.approx(expected / 100)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_bleu_of_a_reference_is_one() -> None:
    assert bleu([known[0] for known in KNOWN], KNOWN, bootstrap=Bootstrap()).value == pytest.approx(1)


def test_cider_prefers_what_people_said() -> None:
    scores = cider_scores(SAID, KNOWN)
    assert scores[0] > scores[2]
    assert scores[2] == pytest.approx(0, abs=1e-9)
    assert cider_scores([known[0] for known in KNOWN], KNOWN).min() > scores.max()


def test_the_nearest_picture_lends_its_caption() -> None:
    pictures = seen_pictures(4)
    assert nearest_captions(pictures[::-1], pictures) == [picture.captions[0] for picture in pictures[::-1]]


def test_the_system_is_compared_with_everything_it_has_to_beat() -> None:
    pictures = seen_pictures(4)
    measured = measure_captions(
        tiny_subject(), pictures, training_pictures=seen_pictures(6), set_name="pets", bootstrap=Bootstrap()
    )
    names = {figure.name for figure in measured.figures}
    ways = (SYSTEM, GREEDY, "image-blind, no prefix", "image-blind, another picture", "nearest neighbour")
    assert {f"CIDEr, {way}" for way in ways} | {f"BLEU-4, {way}" for way in ways} <= names
    assert {f"CIDEr gain over {way}" for way in ways[1:]} <= names
    assert measured.examples[0]["nearest neighbour"] == pictures[0].captions[0]
    blind = {row["image-blind, no prefix"] for row in measured.examples}
    assert len(blind) == 1  # nothing of the picture gets through
    assert len({row[GREEDY] for row in measured.examples}) > 1


def test_without_training_pictures_there_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.evaluation.captions.MAX_NEW_TOKENS", 2)
    subject = tiny_subject()
    alone = Subject(subject.workshop, None)
    measured = measure_captions(alone, seen_pictures(2), training_pictures=[], set_name="pets", bootstrap=Bootstrap())
    assert "--train" in measured.notes[0]
    assert not any("nearest" in figure.name for figure in measured.figures)
