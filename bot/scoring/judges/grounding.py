"""Whether a reply names what is in a picture. Pure: what the thing is, or its kind, found as answers to facts are."""

from collections.abc import Iterable

from bot.scoring.judges.facts import mentions


def names_thing(reply: str, names: Iterable[str], *, language: str = "en") -> bool:
    """Whether one of `names` is in `reply`, and not denied there."""
    return any(mentions(reply, name, language=language) for name in names)
