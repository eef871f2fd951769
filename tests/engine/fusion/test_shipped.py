"""The shipped weights with the real models: what a picture shows has to reach the reply."""

from pathlib import Path

import pytest
import torch

from engine.config import EngineConfig
from engine.decoder.adapter import adapter_folder
from engine.decoder.checkpoint import open_checkpoint
from engine.encoders.types import ImageFeatures
from engine.evaluation.subject import Subject, load_fusion
from engine.fusion.weights import SHIPPED, WEIGHTS_FILE, shipped_folder
from engine.models.store import ModelStore
from engine.training.samples import TrainingSample, exclaim
from engine.training.workshop import Workshop, open_workshop
from engine.types import Role, Turn

DECODER = "smollm2-135m-instruct"
PIZZA = 963
# Kept back in training: that these are named shows that concept words carry to classes never met.
RETRIEVER, AMBULANCE, WINE_BOTTLE, POMEGRANATE = 207, 407, 907, 957
PROMPT = "You are Bruno, a baker from Naples who loves to sing. Stay in character as Bruno. Answer in one sentence."


@pytest.fixture(scope="module")
def workshop(models: ModelStore, cache_dir: Path) -> Workshop:
    checkpoint = open_checkpoint(EngineConfig(cache_dir=cache_dir, decoder=DECODER), models)
    return open_workshop(
        checkpoint,
        models=models,
        features=cache_dir,
        device="cpu",
        dtype=torch.float32,
        adapter=adapter_folder(None, decoder=DECODER),
    )


@pytest.fixture(scope="module")
def subject(workshop: Workshop) -> Subject:
    folder = shipped_folder(DECODER)
    assert folder is not None
    return Subject(workshop, load_fusion(folder, workshop))


def shown(
    class_id: int, reply: str, *, facets: tuple[str, ...] = ("My name is Bruno.", "I am a baker.")
) -> TrainingSample:
    """A picture in which the image encoder sees one class clearly, and a reply to it."""
    ids = torch.tensor([class_id, *range(500, 509)])
    image = ImageFeatures(torch.zeros(0, 1280), ids, torch.tensor([0.64, *[0.04] * 9]))
    return TrainingSample("things", PROMPT, facets, (Turn(Role.USER, "Look!"),), (image,), reply, has_end=False)


def test_the_weights_are_small_enough_to_ship() -> None:
    sizes = [path.stat().st_size for path in SHIPPED.glob(f"*/{WEIGHTS_FILE}")]
    assert sizes
    assert max(sizes) < 20_000_000
    assert all((path.parent / "MODEL_CARD.md").is_file() for path in SHIPPED.glob(f"*/{WEIGHTS_FILE}"))


@pytest.mark.weights
@pytest.mark.parametrize(
    ("class_id", "other"),
    [
        (RETRIEVER, PIZZA),
        (PIZZA, RETRIEVER),
        (AMBULANCE, POMEGRANATE),
        (WINE_BOTTLE, AMBULANCE),
        (POMEGRANATE, WINE_BOTTLE),
    ],
)
def test_a_reply_that_names_the_picture_becomes_likelier(subject: Subject, class_id: int, other: int) -> None:
    reply = exclaim("That's {a}!", subject.workshop.class_names[class_id])
    right, wrong = subject.losses([shown(class_id, reply), shown(other, reply)])
    (without,) = subject.losses([shown(class_id, reply)], has_prefix=False)
    assert right < wrong - 0.3
    assert right < without - 0.3


@pytest.mark.weights
def test_the_persona_changes_the_prefix(subject: Subject) -> None:
    pirate = shown(RETRIEVER, "Arr!", facets=("My name is Morgan.", "I am a pirate.", "I talk like a pirate."))
    baker, pirate_loss = subject.losses([shown(RETRIEVER, "Arr!"), pirate])
    assert abs(baker - pirate_loss) > 1e-3
