"""Runtimes for tests of the loop."""

import math

import pytest

from engine.generation import loop
from engine.runtime.types import Runtime
from tests.engine.generation.loops import KINDS, PAGED_KINDS, a_runtime


@pytest.fixture(params=KINDS)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each kind in turn."""
    return a_runtime(request.param)


@pytest.fixture(params=PAGED_KINDS)
def paged(request: pytest.FixtureRequest) -> Runtime:
    """Those that share blocks and read prompts in parts."""
    return a_runtime(request.param)


@pytest.fixture(autouse=True)
def _everybody_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: otherwise those who come after a slow preparation begin a step later."""
    monkeypatch.setattr(loop, "MAX_PREPARATION_S", math.inf)
