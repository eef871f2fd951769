"""Puts questions to personas on an engine, several side by side, and notes what they say.

Owns the asking: scripts, requests as the bot makes them or with one plain prompt, and what became of each. Knows no
judge, and no engine but by the seam; nobody's conversations are touched.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bot.labels import without_labels
from bot.personas.prompt import build_request, fill_macros
from bot.scoring.plain import plain_prompt
from engine.errors import EngineError
from engine.persona import Persona
from engine.types import Asker, GenerationRequest, Image, ReplyEngine, Role, SamplingSettings, Turn

NUM_AT_ONCE = 8
USER_NAME = "Alex"
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
    """How it is asked: everything `num_repeats` times. With a `seed` the replies are the same every time.

    `is_plain`: the persona's whole text is one system prompt, as people without Commedia would do it.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    num_repeats: int = 3
    seed: int | None = None
    is_plain: bool = False


def num_replies(scripts: Sequence[tuple[Persona, Script]], options: TrialOptions) -> int:
    """How many replies `ask_all` asks for at most."""
    return options.num_repeats * sum(len(script.lines) for _, script in scripts)


async def ask_all(
    engine: ReplyEngine,
    scripts: Sequence[tuple[Persona, Script]],
    options: TrialOptions,
    *,
    on_reply: Callable[[], None] = lambda: None,
) -> list[Said]:
    """Play all scripts on an engine that was started, in the order given. A script ends where a reply fails."""
    places = asyncio.Semaphore(NUM_AT_ONCE)

    async def play(number: int, persona: Persona, script: Script, repeat: int) -> list[Said]:
        async with places:
            return await _play(engine, persona, script, options, repeat=repeat, number=number, on_reply=on_reply)

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(play(number, persona, script, repeat))
            for number, (persona, script) in enumerate(scripts)
            for repeat in range(options.num_repeats)
        ]
    return [said for task in tasks for said in task.result()]


async def _play(
    engine: ReplyEngine,
    persona: Persona,
    script: Script,
    options: TrialOptions,
    *,
    repeat: int,
    number: int,
    on_reply: Callable[[], None],
) -> list[Said]:
    asker = Asker(user=f"test {number}.{repeat}", room="test", conversation=f"test {number}.{repeat}")
    turns: list[Turn] = []
    said: list[Said] = []
    for position, line in enumerate(script.lines):
        turns.append(Turn(Role.USER, line.text, (line.image,) if line.image else ()))
        request = _request(persona, turns, options, asker=asker, repeat=repeat)
        note = Said(persona.id, script.check, script.key, repeat, position, line, "", request.system_prompt)
        try:
            reply = await _reply(engine, request)
        except EngineError as error:
            said.append(replace(note, failure=str(error)))
            break
        finally:
            on_reply()
        said.append(replace(note, reply=reply))
        turns.append(Turn(Role.ASSISTANT, reply))
    return said


def _request(
    persona: Persona, turns: Sequence[Turn], options: TrialOptions, *, asker: Asker, repeat: int
) -> GenerationRequest:
    seed = None if options.seed is None else options.seed + _SEED_STEP * repeat
    request = build_request(persona, turns, sampling=options.sampling, user_name=USER_NAME, seed=seed, asker=asker)
    if options.is_plain:
        prompt = fill_macros(plain_prompt(persona), persona, USER_NAME)
        return replace(request, system_prompt=prompt, insertions=())
    return request


async def _reply(engine: ReplyEngine, request: GenerationRequest) -> str:
    """What people would see: the name that a model puts in front is taken away for them, too."""
    names = (request.persona.name, USER_NAME)
    chunks = without_labels(engine.generate(request), names)
    return "".join([chunk.text async for chunk in chunks]).strip()
