"""Puts questions to personas on an engine, several side by side, and notes what they say.

Owns the asking: scripts, their order, and what became of each line; `bot.scoring.requests` makes the requests.
Knows no judge, and no engine but by the seam; nobody's conversations are touched.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bot.labels import without_labels
from bot.scoring.requests import USER_NAME, RequestWriter
from engine.errors import EngineError
from engine.persona import Persona
from engine.types import Asker, Image, ReplyEngine, Role, Turn

NUM_AT_ONCE = 8
# The seeds of a seeded run are far apart for each thing asked again.
_SEED_STEP = 1009


@dataclass(frozen=True, slots=True)
class Line:
    """What is said to a persona. `kind` is what the line is for, such as pressure; `image_name` what it shows."""

    text: str
    kind: str = ""
    image: Image | None = field(default=None, repr=False)
    image_name: str | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """Lines that are said one after the other, each after the reply to the one before.

    `check` is what they are for; `key` tells the scripts of one check and persona apart.
    """

    check: str
    key: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """One reply. `position` counts a script's lines from 0; `failure` says why there is none.

    `system_prompt` is what stood before the conversation.
    """

    persona_id: str
    check: str
    key: str
    repeat: int
    position: int
    line: Line
    reply: str
    system_prompt: str = field(default="", repr=False)
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """How often everything is asked. With a `seed` the replies are the same every time, and slower."""

    num_repeats: int = 3
    seed: int | None = None


def num_replies(scripts: Sequence[tuple[Persona, Script]], options: TrialOptions) -> int:
    """How many replies `ask_all` asks for at most."""
    return options.num_repeats * sum(len(script.lines) for _, script in scripts)


async def ask_all(
    engine: ReplyEngine,
    requests: RequestWriter,
    scripts: Sequence[tuple[Persona, Script]],
    options: TrialOptions,
    *,
    on_reply: Callable[[], None] = lambda: None,
) -> list[Said]:
    """Play all scripts on an engine that was started, in the order given. A script ends where a reply fails."""
    trial = _Trial(engine, requests, options, on_reply)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(trial.play(persona, script, number=number, repeat=repeat))
            for number, (persona, script) in enumerate(scripts)
            for repeat in range(options.num_repeats)
        ]
    return [said for task in tasks for said in task.result()]


class _Trial:
    """What all scripts share."""

    def __init__(
        self, engine: ReplyEngine, requests: RequestWriter, options: TrialOptions, on_reply: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._requests = requests
        self._options = options
        self._on_reply = on_reply
        self._places = asyncio.Semaphore(NUM_AT_ONCE)

    async def play(self, persona: Persona, script: Script, *, number: int, repeat: int) -> list[Said]:
        async with self._places:
            chat = f"test {number}.{repeat}"
            asker = Asker(user=chat, room=chat, conversation=chat)
            seed = None if self._options.seed is None else self._options.seed + _SEED_STEP * repeat
            turns: list[Turn] = []
            said: list[Said] = []
            for position, line in enumerate(script.lines):
                turns.append(Turn(Role.USER, line.text, (line.image,) if line.image else ()))
                note = Said(persona.id, script.check, script.key, repeat, position, line, "")
                said.append(await self._answered(note, persona, turns, asker, seed))
                self._on_reply()
                if said[-1].failure is not None:
                    break
                turns.append(Turn(Role.ASSISTANT, said[-1].reply))
            return said

    async def _answered(
        self, note: Said, persona: Persona, turns: Sequence[Turn], asker: Asker, seed: int | None
    ) -> Said:
        try:
            request = await self._requests.write(persona, turns, asker=asker, seed=seed)
            # What people would see: a name that a model puts in front is taken away for them, too.
            chunks = without_labels(self._engine.generate(request), (persona.name, USER_NAME))
            reply = "".join([chunk.text async for chunk in chunks]).strip()
        except EngineError as error:
            return replace(note, failure=str(error))
        return replace(note, reply=reply, system_prompt=request.system_prompt)
