"""Explaining: which parts of picture, words and persona a reply was made of.

`explain` is the way in. Importing this package brings in no model; what it needs is imported when it is called, on the
engine's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.decoder.language_model import LanguageModel
    from engine.fusion.types import TurnFuser
    from engine.types import Explanation, GenerationRequest

Measure = Literal["influence", "attention"]


def explain(
    language_model: LanguageModel,
    fuser: TurnFuser | None,
    request: GenerationRequest,
    reply: str,
    *,
    measure: Measure = "influence",
) -> Explanation:
    """What `reply`, an answer to `request`, was made of, as far as the fused prefix goes.

    `influence` asks how much less likely the reply would be without each part; `attention` reads off where the fusion
    looked, which is quicker and says less (docs/why.md). Raises `RequestError` where there is no reply to explain.
    """
    from engine.explaining.shares import explain_reply  # here, so that importing the package costs nothing

    return explain_reply(language_model, fuser, request, reply, measure=measure)
