"""On the real default weights: what is said next depends on the picture and on the persona."""

import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bot.personas.prompt import build_request
from bot.personas.reading import read_persona
from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.fusion import load_fuser
from engine.fusion.types import TurnFuser
from engine.models.store import ModelStore
from engine.types import Image, Role, SamplingSettings, Turn

pytestmark = pytest.mark.weights

ROOT = Path(__file__).parents[2]
WORDS = "Look, what is this?"
OPENING = "This is a"


class Speaker:
    """The default stack, asked how a reply goes on that begins with `OPENING`."""

    def __init__(self, language_model: LanguageModel, fuser: TurnFuser) -> None:
        self._language_model = language_model
        self._fuser = fuser
        self.remembered = cache(self.next_token)

    def next_token(self, persona_id: str, picture: str | None) -> Tensor:
        """Log-probabilities `(vocabulary,)`."""
        persona = read_persona(ROOT / "personas" / f"{persona_id}.yaml")
        images = (self._image(picture),) if picture else ()
        request = build_request(persona, [Turn(Role.USER, WORDS, images)], sampling=SamplingSettings())
        context = self._fuser.fuse(persona, WORDS, images)
        places = {0} if context else set()
        pieces = self._language_model.prompts.write(
            request.system_prompt, request.turns, places=places, reply_start=OPENING
        )
        prompt = self._language_model.encode(pieces, [context.prefix] if context else [])
        logits = self._language_model.prefill(prompt, self._language_model.new_state())
        return logits.float().flatten().log_softmax(dim=-1)

    def _image(self, name: str) -> Image:
        data = (ROOT / "tests" / "pictures" / name).read_bytes()
        return Image(hashlib.sha256(data).hexdigest(), data)


@pytest.fixture(scope="module")
def speaker(models: ModelStore, cache_dir: Path) -> Speaker:
    config = EngineConfig(cache_dir=cache_dir, dtype="float32")
    language_model = LanguageModel.load(config, models=models)
    fuser = load_fuser(config, models=models, language_model=language_model)
    assert fuser is not None, "the default decoder ships with fusion weights"
    return Speaker(language_model, fuser)


def divergence(first: Tensor, second: Tensor) -> float:
    """Jensen-Shannon divergence in nats: 0 for the same distribution, at most ln 2 = 0.69."""
    middle = torch.logaddexp(first, second) - torch.log(torch.tensor(2.0))
    return float(((first.exp() * (first - middle)).sum() + (second.exp() * (second - middle)).sum()) / 2)


def test_the_same_question_gets_the_same_distribution(speaker: Speaker) -> None:
    assert torch.equal(speaker.next_token("okoro", "coffee.jpg"), speaker.next_token("okoro", "coffee.jpg"))


@pytest.mark.parametrize("persona_id", ["okoro", "june", "grub"])
def test_the_picture_changes_the_reply(speaker: Speaker, persona_id: str) -> None:
    coffee, cat, blind = (speaker.remembered(persona_id, name) for name in ("coffee.jpg", "cat.jpg", None))
    assert divergence(coffee, cat) > 0.1
    assert divergence(coffee, blind) > 0.1


def test_the_persona_changes_the_reply(speaker: Speaker) -> None:
    teacher, goblin = (speaker.remembered(persona_id, "coffee.jpg") for persona_id in ("okoro", "grub"))
    assert divergence(teacher, goblin) > 0.03
