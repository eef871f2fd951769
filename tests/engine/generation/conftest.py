"""Runtimes for tests of the loop."""

import pytest

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
