"""Libraries that only training and measuring need: missing ones are named with their remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import ConfigurationError


@contextmanager
def needing_extras() -> Iterator[None]:
    """Import what the extra `train` brings. Raises `ConfigurationError` where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"measuring needs {error.name}, which is not installed: pip install 'commedia[train]'"
        ) from error
