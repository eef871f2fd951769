"""Who may ask for one more reply, and who is sent away with a word about what to do.

Owns the bounds on open requests. Knows nothing of order: that is `engine.generation.queue`.
"""

from collections.abc import Iterable

from engine.errors import AskerBusy, EngineBusy
from engine.types import GenerationRequest


def require_room(
    request: GenerationRequest, open_requests: Iterable[GenerationRequest], *, max_open: int, max_per_user: int
) -> None:
    """Raises `AskerBusy` where the asker has too many of `open_requests`, `EngineBusy` where there are too many in all.

    Requests that do not say who asks are bound only together with all others.
    """
    num_open = num_own = 0
    for other in open_requests:
        num_open += 1
        num_own += request.asker is not None and other.asker is not None and other.asker.user == request.asker.user
    if num_own >= max_per_user:
        raise AskerBusy(
            f"{num_own} replies are already being made for this person: let one of them end first, or raise "
            "engine.max_waiting_per_user"
        )
    if num_open >= max_open:
        raise EngineBusy(
            f"{num_open} replies are already asked for: try again in a moment, or raise engine.max_waiting"
        )
