"""How the labelled replies are put before the guard's signs, and how often these are right."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bot.guarding.signs import Break, find_break
from bot.personas.prompt import build_request
from engine.lore import LoreEntry
from engine.persona import Example, Identity, Persona, Voice
from engine.types import GenerationRequest, Role, SamplingSettings, Turn
from tests.bot.guarding.labelled import Labelled, Who

_IDENTITIES: dict[Who, tuple[str, Identity]] = {
    "human": ("The keeper of Gannet Light, who tells tales to whoever climbs her stairs.", Identity(age=70)),
    "goblin": ("A goblin with a shop.", Identity(species="goblin")),
    "robot": ("A gardening robot with a squeaky wheel.", Identity(species="robot")),
    "support": ("The support agent of an online shop for pens.", Identity(occupation="customer support")),
}


def persona(who: Who = "human", language: str = "en") -> Persona:
    """Somebody called Mira."""
    summary, identity = _IDENTITIES[who]
    return Persona(
        id="mira",
        name="Mira",
        nickname="米拉" if language == "zh" else None,
        summary=summary,
        language=language,
        identity=identity,
        voice=Voice(style=("tells in images of sea and lamp light",), formality="formal"),
        boundaries=("speak in modern slang or about the year that comes after the storm",),
        greetings=("Come in out of the wind, {{user}}. Ninety-nine stairs, and you climbed them all, child.",),
        examples=(
            Example(user="Who are you?", reply="I am Mira, and I keep the lamp of Gannet Light."),
            Example(user="Is it late?", reply="It is always late here, child, and never too late."),
        ),
        lore=(
            LoreEntry(
                keys=("bell",),
                content="The bell of Gannet Light fell into the sea in the great storm.",
            ),
        ),
    )


def request_of(sample: Labelled) -> GenerationRequest:
    """What `sample` answers."""
    turns = [Turn(Role.USER, sample.user)]
    if sample.earlier:
        turns = [Turn(Role.USER, "Hello."), Turn(Role.ASSISTANT, sample.earlier), *turns]
    request = build_request(persona(sample.who, sample.language), turns, sampling=SamplingSettings())
    return replace(request, speakers=("Ann",))


def found_in(sample: Labelled) -> Break | None:
    """What the signs say."""
    return find_break(sample.reply, request=request_of(sample))


@dataclass(frozen=True, slots=True)
class Figures:
    """How often the signs are right. `num_named` are breaks that were found and called by their kind."""

    num_found: int
    num_breaks: int
    num_false: int
    num_good: int
    num_named: int

    @property
    def precision(self) -> float:
        return self.num_found / max(1, self.num_found + self.num_false)

    @property
    def recall(self) -> float:
        return self.num_found / max(1, self.num_breaks)


def judge(samples: Iterable[Labelled]) -> Figures:
    """The figures over `samples`."""
    judged = [(sample.kind, found_in(sample)) for sample in samples]
    breaks = [(kind, found) for kind, found in judged if kind is not None]
    good = [found for kind, found in judged if kind is None]
    return Figures(
        num_found=sum(found is not None for _, found in breaks),
        num_breaks=len(breaks),
        num_false=sum(found is not None for found in good),
        num_good=len(good),
        num_named=sum(found is not None and found.kind == kind for kind, found in breaks),
    )
