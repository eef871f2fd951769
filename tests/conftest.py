"""Fixtures that several rooms' tests share: the cache of real weights, and a tiny random backbone."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Beside other workers of pytest-xdist, one thread each: two pools on two cores wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from engine.errors import WeightsError
from engine.models.store import ModelStore
from engine.thread import THREAD_NAME

ROOT = Path(__file__).parent.parent


def pytest_collection_finish() -> None:
    """Keep what all tests import from the garbage collector: some libraries collect, and would look through it all."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_engine_is_left_behind() -> Iterator[None]:
    """An engine's thread that outlives its test slows the others, and none of them would say whose it was."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    for thread in set(threading.enumerate()) - before:
        if thread.name == THREAD_NAME:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), "an engine was not closed"


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
