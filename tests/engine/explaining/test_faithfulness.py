"""The measurement itself: a share that means something must show, one that does not must not."""

from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.decoder.language_model import LanguageModel
from engine.explaining import faithfulness as module
from engine.explaining.faithfulness import faithfulness, requests_about
from engine.explaining.influence import Influence
from engine.fusion import load_fuser
from engine.fusion.pipeline import FusionPipeline
from engine.models.store import ModelStore
from engine.types import GenerationRequest, Image, Role, SamplingSettings, Turn
from tests.engine.explaining.tiny import PERSONA, a_pipeline, a_request, said, two_coloured
from tests.engine.tiny import tiny_language_model

PICTURES = Path(__file__).parents[2] / "pictures"
REQUESTS = [a_request(said("a dog", "red")), a_request(said("dog", "blue")), a_request(said("a cat"))]


@pytest.fixture(scope="module")
def lost() -> dict[str, list[float]]:
    return faithfulness(tiny_language_model(), a_pipeline(), REQUESTS)


def test_every_kind_is_compared_with_random_parts(lost: dict[str, list[float]]) -> None:
    kinds = ("regions", "concepts", "words", "facets")
    columns = ("most influence", "most attention", "random")
    assert set(lost) == {f"{kind}: {column}" for kind in kinds for column in columns}
    # The last request has no prefix; the second has a single word, which leaves no choice.
    assert {name: len(values) for name, values in lost.items() if not name.startswith("words")} == {
        f"{kind}: {column}": 2 for kind in ("regions", "concepts", "facets") for column in columns
    }
    assert len(lost["words: random"]) == 1


def test_the_part_with_most_influence_costs_more_than_a_random_one(lost: dict[str, list[float]]) -> None:
    for kind in ("regions", "words", "facets"):
        assert sum(lost[f"{kind}: most influence"]) > sum(lost[f"{kind}: random"])


def test_misleading_shares_are_found_out(monkeypatch: pytest.MonkeyPatch, lost: dict[str, list[float]]) -> None:
    """Shares turned upside down must lose: a measurement that praises them would praise anything."""
    honest = module.influence_of

    def upside_down(*arguments: object) -> Influence:
        found = honest(*arguments)
        return Influence({kind: -drops for kind, drops in found.parts.items()}, found.streams)

    monkeypatch.setattr(module, "influence_of", upside_down)
    misled = faithfulness(tiny_language_model(), a_pipeline(), REQUESTS[:1], measures=("influence",))
    assert misled["facets: most influence"][0] < lost["facets: most influence"][0]
    assert misled["facets: most influence"][0] < misled["facets: random"][0]
    assert "facets: most attention" not in misled


def test_somebody_shows_each_picture_of_a_set(tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "a.png").write_bytes(two_coloured("red"))
    (tmp_path / "things.jsonl").write_text('{"image": "a.png", "captions": ["a photo of a thing"]}\n')
    [request] = requests_about(tmp_path, "things", limit=5)
    assert request.turns[-1].images[0].data == two_coloured("red")
    assert request.turns[-1].text
    assert request.persona.name in request.system_prompt


@pytest.mark.weights
@pytest.mark.timeout(600)
def test_replies_of_the_shipped_weights_lose_most_without_what_mattered_most(
    models: ModelStore, cache_dir: Path
) -> None:
    config = EngineConfig(cache_dir, device="cpu", dtype="float32")
    model = LanguageModel.load(config, models=models)
    fuser = load_fuser(config, models=models, language_model=model)
    assert isinstance(fuser, FusionPipeline)
    requests = []
    for seed, name in enumerate(("cat.jpg", "coffee.jpg")):
        data = (PICTURES / name).read_bytes()
        turn = Turn(Role.USER, "What is this?", (Image(name, data),))
        settings = SamplingSettings(temperature=0.5, max_new_tokens=12, seed=seed)
        requests.append(GenerationRequest(PERSONA, "You are Ada, a friendly guide.", (turn,), settings))
    lost = faithfulness(model, fuser, requests, measures=("influence",))
    for kind in ("regions", "concepts", "words", "facets"):
        assert sum(lost[f"{kind}: most influence"]) > sum(lost[f"{kind}: random"])
    assert sum(lost["concepts: most influence"]) > 0.5
