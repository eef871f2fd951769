"""Which replica answers: the one that knows the conversation, unless it is full.

Owns the choice, by names and numbers alone. Knows no Ray; `engine.backends.ray_serve.router` brings both together.

A conversation's home is found by rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit
rates", 1998): everybody who knows the replicas finds the same one with nothing to remember, and where a replica comes
or goes, only the conversations move that it takes or had.
"""

import hashlib
from collections.abc import Collection, Mapping

Ranks = list[list[str]]
"""Replicas by preference: all of one rank are as good as one another, but for their load."""


def session_of(conversation: str) -> str:
    """A name for `conversation` that may stand in Ray's logs: it tells nothing about who talks."""
    return hashlib.sha256(conversation.encode()).hexdigest()[:16] if conversation else ""


def home_of(session: str, replicas: Collection[str]) -> str:
    """The replica, of at least one, where `session` is at home."""
    return max(replicas, key=lambda replica: hashlib.sha256(f"{replica} {session}".encode()).digest())


def ranked(session: str, num_ongoing: Mapping[str, int], *, max_running: int) -> Ranks:
    """Which replicas to try for `session`, given how many requests each has. One without a session goes to the least
    loaded. So does one whose home is full: to read a conversation anew costs less than to wait behind others."""
    everybody = list(num_ongoing)
    if not session or not everybody:
        return [everybody]
    home = home_of(session, everybody)
    if num_ongoing[home] >= max_running:
        return [everybody]
    return [[home], [replica for replica in everybody if replica != home]]
