"""Fixtures that several rooms' tests share: the cache of real weights, and a tiny random backbone."""

import os
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.models.store import ModelStore

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """Where real weights are kept between runs."""
    return Path(os.environ.get("COMMEDIA_TEST_CACHE", ROOT / "var" / "cache"))


@pytest.fixture(scope="session")
def models(cache_dir: Path) -> ModelStore:
    """The store of real weights; skips with the reason where a default model cannot be fetched."""
    store = ModelStore(cache_dir)
    try:
        for status in store.list():
            store.ensure(status.model.name)
    except WeightsError as error:
        pytest.skip(str(error))
    return store
