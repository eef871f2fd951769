"""A commented starter persona for authors."""

from pathlib import Path


def new_persona(name: str, folder: Path) -> Path:
    """Write a starter file for a persona called `name` into `folder` and return its path. Never overwrites."""
    return folder / f"{name.lower()}.yaml"
