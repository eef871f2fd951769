"""How often personas leave their part under pressure, without and with the guard, on the configured model.

    python -m benchmarks.guard --json OUT [--rounds N] [--read FILE]

Every shipped persona is asked the prompts of its language in `benchmarks.guard_prompts`, each in a conversation of its
own that begins with the persona's greeting, once without and once with the guard. `--read` writes a sample of
replies for reading blind: shuffled, with the key apart beside it.
"""

import argparse
import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.guard_prompts import LOOKED_AT, MEASURED, MEASURED_AFTER, MEASURED_LAST
from bot.app import build_engine, sampling_defaults
from bot.guarding import tongues
from bot.guarding.engine import GuardedEngine
from bot.guarding.signs import Watch
from bot.personas.library import PersonaLibrary
from bot.personas.prompt import build_request, fill_macros
from bot.settings import read_settings
from engine.persona import GuardRules, Persona
from engine.types import Asker, Engine, GenerationRequest, ReplyChunk, Role, SamplingSettings, Turn

ROOT = Path(__file__).parent.parent
NUM_AT_ONCE = 16
USER = "Ann"
PROMPTS = {
    "looked-at": LOOKED_AT,
    "measured": MEASURED,
    "measured-after": MEASURED_AFTER,
    "measured-last": MEASURED_LAST,
}
OPENINGS = {"en": "Hello!", "zh": "你好！", "es": "¡Hola!", "de": "Hallo!"}


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, how it was made, and what the guard's signs say of it."""

    persona: str
    prompt: str
    text: str
    is_guarded: bool
    kind: str | None
    first_text_s: float
    duration_s: float
    num_new_tokens: int
    done: tuple[tuple[str, str], ...] = ()
    tries: tuple[str, ...] = ()


class Recording:
    """An engine that keeps what it said in every try."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.context = engine.context
        self.count_tokens = engine.count_tokens
        self.start = engine.start
        self.load = engine.load
        self.aclose = engine.aclose
        self.tries: list[str] = []

    async def generate(self, request: GenerationRequest) -> AsyncIterator[ReplyChunk]:
        self.tries.append("")
        async with contextlib.aclosing(self._engine.generate(request)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                self.tries[-1] += chunk.text
                yield chunk


async def ask(engine: Engine, request: GenerationRequest, *, is_guarded: bool) -> Reply:
    """One reply, by way of the guard or not."""
    done: list[tuple[str, str]] = []
    recording = Recording(engine)
    guarded = GuardedEngine(recording, counting=lambda kind, outcome: done.append((kind, outcome)))
    began, first_text_s, text, num_new_tokens = time.perf_counter(), 0.0, "", 0
    async for chunk in (guarded if is_guarded else recording).generate(request):
        if chunk.text and not first_text_s:
            first_text_s = time.perf_counter() - began
        text += chunk.text
        num_new_tokens = chunk.stats.num_new_tokens if chunk.stats else num_new_tokens
    found = Watch(request).find(text)
    return Reply(
        request.persona.id,
        request.turns[-1].text,
        text,
        is_guarded,
        found.kind.value if found else None,
        first_text_s,
        time.perf_counter() - began,
        num_new_tokens,
        tuple(done),
        tuple(recording.tries),
    )


def request_for(persona: Persona, prompt: str, sampling: SamplingSettings) -> GenerationRequest:
    """As the bot would ask, after the persona's greeting."""
    turns = [Turn(Role.USER, prompt)]
    if persona.greetings:
        opening = OPENINGS.get(persona.language.split("-")[0], OPENINGS["en"])
        greeting = fill_macros(persona.greetings[0], persona, USER)
        turns = [Turn(Role.USER, opening), Turn(Role.ASSISTANT, greeting), *turns]
    asker = Asker(user=f"{persona.id} {prompt}", room=persona.id)
    return build_request(persona, turns, sampling=sampling, user_name=USER, asker=asker)


async def measure(
    engine: Engine,
    personas: Sequence[Persona],
    prompts: dict[str, tuple[str, ...]],
    *,
    num_rounds: int,
    seed: int,
    ways: tuple[bool, ...],
    num_at_once: int,
    path: Path | None,
) -> list[Reply]:
    """Every prompt, without and with the guard, `num_rounds` times, in a random order. What is there is in `path` at
    any time, so that nothing is lost where it has to be broken off."""
    sampling = sampling_defaults(read_settings(environment={}))
    free = asyncio.Semaphore(num_at_once)
    replies: list[Reply] = []

    async def both(persona: Persona, prompt: str) -> None:
        async with free:
            for is_guarded in ways:
                reply = await ask(engine, request_for(persona, prompt, sampling), is_guarded=is_guarded)
                replies.append(reply)
                if path is not None:
                    with path.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(asdict(reply), ensure_ascii=False) + "\n")

    asked = [
        (persona, prompt)
        for persona in personas
        for prompt in prompts.get(persona.language.split("-")[0], prompts["en"])
        for _ in range(num_rounds)
    ]
    random.Random(seed).shuffle(asked)
    await asyncio.gather(*(both(persona, prompt) for persona, prompt in asked))
    return replies


def show(replies: Sequence[Reply]) -> None:
    """The figures of both, beside each other."""
    for is_guarded in (False, True):
        group = [reply for reply in replies if reply.is_guarded is is_guarded]
        kinds = Counter(reply.kind for reply in group if reply.kind)
        outcomes = Counter(outcome for reply in group for outcome in {outcome for _, outcome in reply.done})
        print(
            f"{'with' if is_guarded else 'without'} the guard: {sum(kinds.values())} of {len(group)} replies break by "
            f"the signs ({sum(kinds.values()) / max(1, len(group)):.1%}) {dict(kinds)}; done: {dict(outcomes)}; first "
            f"text {median([reply.first_text_s for reply in group] or [0.0]):.2f} s, whole reply "
            f"{median([reply.duration_s for reply in group] or [0.0]):.2f} s"
        )
        for persona in sorted({reply.persona for reply in group}):
            own = [reply for reply in group if reply.persona == persona]
            print(f"   {persona:12} {sum(reply.kind is not None for reply in own):3} of {len(own)}")


def write_for_reading(replies: Sequence[Reply], path: Path, *, num_each: int, seed: int) -> None:
    """`num_each` replies without and with the guard in one order, and beside them which is which."""
    choose = random.Random(seed)
    chosen = [
        reply
        for is_guarded in (False, True)
        for reply in choose.sample([one for one in replies if one.is_guarded is is_guarded], num_each)
    ]
    choose.shuffle(chosen)
    lines = [f"{number}\t[{one.persona}] {one.prompt!r}\n\t\t{one.text!r}" for number, one in enumerate(chosen)]
    path.write_text("\n".join(lines), encoding="utf-8")
    key = [{"number": number, **asdict(one)} for number, one in enumerate(chosen)]
    path.with_suffix(".key.json").write_text(json.dumps(key, ensure_ascii=False), encoding="utf-8")


async def run(options: argparse.Namespace) -> None:
    """Measure, show and write."""
    library = PersonaLibrary([ROOT / "personas"])
    library.load()
    personas = library.all()
    if options.persona:
        personas = tuple(persona for persona in personas if persona.id in options.persona)
    if options.without_deflections:
        personas = tuple(persona.model_copy(update={"guard": GuardRules()}) for persona in personas)
    settings = read_settings(environment={})
    engine = build_engine(settings)
    await asyncio.gather(engine.start(), asyncio.to_thread(tongues.load))
    try:
        prompts = PROMPTS[options.prompts]
        ways = (True,) if options.only_with else (False, True)
        replies = await measure(
            engine,
            personas,
            prompts,
            num_rounds=options.rounds,
            seed=options.seed,
            ways=ways,
            num_at_once=options.at_once,
            path=options.json,
        )
    finally:
        await engine.aclose()
    show(replies)
    if options.read:
        write_for_reading(replies, options.read, num_each=options.num_read, seed=options.seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write every reply there, one a line")
    parser.add_argument("--read", type=Path, help="write replies for reading blind there")
    parser.add_argument("--num-read", type=int, default=60, help="how many of each to read")
    parser.add_argument("--at-once", type=int, default=NUM_AT_ONCE, help="how many chats run side by side")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=6, help="of the choice of what is read")
    parser.add_argument("--persona", action="append", help="only this one; can be given several times")
    parser.add_argument("--only-with", action="store_true", help="only with the guard; first tries are in the JSON")
    parser.add_argument("--prompts", choices=tuple(PROMPTS), default="measured-last")
    parser.add_argument("--without-deflections", action="store_true", help="as if no persona had any")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
