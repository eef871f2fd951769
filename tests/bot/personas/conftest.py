"""Persona files made by the tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

MIRA = """\
name: Mira
summary: Keeper of a lighthouse who collects storms.
greetings:
  - Ahoy!
"""

WritePersona = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> WritePersona:
    """Write a persona file and return its path: `write("mira.yaml", "more: lines")`."""

    def write(name: str = "mira.yaml", more: str = "", *, base: str = MIRA) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(base + more, encoding="utf-8")
        return path

    return write
