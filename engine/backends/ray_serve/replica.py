"""One replica: an engine of its own in a process of its own, and how its errors cross to the bot.

Runs inside Ray Serve. Knows neither Ray nor who calls; what it streams are plain values. Errors that the engine raises
on purpose cross as values too, so that type and words arrive whole and no traceback of ours ends up in Ray's logs.
"""

import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import engine.errors
from engine.config import EngineConfig
from engine.errors import EngineError
from engine.types import Engine, EngineLoad, GenerationRequest, ReplyChunk

BuildEngine = Callable[[EngineConfig], Engine]

_REFUSAL = "commedia-refusal:"


@dataclass(frozen=True, slots=True)
class Taken:
    """The first that a replica says to a request: it is here now, and `replica` answers it."""

    replica: str


Item = Taken | ReplyChunk | EngineError
"""What a replica streams."""


class StartRefused(Exception):
    """A replica cannot start. Serve hands on nothing but an exception's text, which therefore carries the error."""

    @classmethod
    def because(cls, error: EngineError) -> "StartRefused":
        """The refusal that `refusal_in` finds again."""
        return cls(_REFUSAL + json.dumps([type(error).__name__, str(error)]))


def refusal_in(text: str) -> EngineError | None:
    """The error of the `StartRefused` that `text` quotes, if it quotes one."""
    _, mark, rest = text.partition(_REFUSAL)
    if not mark:
        return None
    try:
        (name, message), _ = json.JSONDecoder().raw_decode(rest)
    except (TypeError, ValueError):
        return None
    kind = getattr(engine.errors, str(name), EngineError)
    is_ours = isinstance(kind, type) and issubclass(kind, EngineError)
    return (kind if is_ours else EngineError)(message)


def crossing(error: EngineError) -> EngineError:
    """`error` as it may be sent: its type and words, without causes, which need not be picklable."""
    return type(error)(str(error))


def build_local(config: EngineConfig) -> Engine:
    """The engine of this machine's own device."""
    # Imported in the replica: the bot's own process needs none of it.
    from engine.service import EngineService

    return EngineService(config)


class EngineReplica:
    """What Ray Serve deploys: `build` makes its engine from `config`."""

    async def __init__(self, config: EngineConfig, build: BuildEngine) -> None:  # type: ignore[misc] # Serve awaits it
        self._name = uuid.uuid4().hex
        self._engine = build(config)
        try:
            await self._engine.start()
        except EngineError as error:
            raise StartRefused.because(error) from None

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Item]:
        """Stream a reply, or the error that ends it."""
        yield Taken(self._name)
        chunks = self._engine.generate(request)
        try:
            async for chunk in chunks:
                yield chunk
        except EngineError as error:
            yield crossing(error)
        finally:
            # Serve closes this generator when the bot lets go of the reply; the engine shall stop at once, not when
            # the garbage is collected.
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def ask(self, name: str, *arguments: object, **named: object) -> object:
        """What the engine's method `name` says: its result, or its error as a value."""
        try:
            return await getattr(self._engine, name)(*arguments, **named)
        except EngineError as error:
            return crossing(error)

    async def load(self) -> tuple[str, EngineLoad]:
        """This replica's name, and how busy it is."""
        return self._name, self._engine.load()

    async def check_health(self) -> None:
        """Serve replaces the replica where this raises: an engine whose thread has died does not come back."""
        failure: EngineError | None = getattr(self._engine, "failure", None)
        if failure is not None:
            raise crossing(failure)
