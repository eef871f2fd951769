"""The checks that a persona is put through: what is asked for each, and which judge reads the replies."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bot.scoring import prompts
from bot.scoring.judges.breaks import Break, find_break
from bot.scoring.judges.facts import judge_fact
from bot.scoring.judges.grounding import names_thing
from bot.scoring.judges.safety import judge_safety
from bot.scoring.judges.voice import Heard, Voices, voices_of
from bot.scoring.pictures import Picture, load_pictures, names_of
from bot.scoring.scores import CHECK_NAMES, Check, Judged
from bot.scoring.trial import Line, Said, Script
from engine.persona import Persona

# Of a long chat, as many turns at its end are compared with as many at its beginning.
NUM_COMPARED = 10
QUICK_PICTURES = 4


@dataclass(frozen=True, slots=True)
class Ear:
    """Hears whose voice a reply is in, among all of `cast` who speak the persona's language."""

    cast: tuple[Persona, ...]
    _voices: dict[tuple[str, str], Voices] = field(default_factory=dict, repr=False, compare=False)

    def voices(self, persona: Persona) -> Voices:
        """Those to choose from, `persona`'s own among them."""
        key = (persona.id, persona.digest())
        if key not in self._voices:
            others = [other for other in self.cast if other.id != persona.id]
            self._voices[key] = voices_of([*others, persona], prompts.main_language(persona))
        return self._voices[key]

    def hear(self, persona: Persona, reply: str) -> Heard:
        """How `reply` sounds."""
        return self.voices(persona).hear(reply, persona.id)


@dataclass(frozen=True, slots=True)
class VoiceCheck:
    """Everyday lines, answered in the persona's own voice and not with the words of its examples."""

    ear: Ear
    is_quick: bool = False
    name: str = "voice"

    def scripts(self, persona: Persona) -> Sequence[Script]:
        """One for each line."""
        return _single_lines(self.name, prompts.everyday(persona, is_quick=self.is_quick))

    def judge(self, persona: Persona, said: Sequence[Said]) -> Sequence[Judged]:
        """1 where the own voice is the nearest, and the reply is no copy."""
        return [self._judged(persona, one) for one in said]

    def details(self, persona: Persona, judged: Sequence[Judged]) -> Mapping[str, float]:
        """How close the replies are to the examples, how many are copies, and what guessing would get."""
        heard = [self.ear.hear(persona, one.said.reply) for one in judged]
        own = [one.closeness for one in heard if not one.is_copy]
        return {
            "chance": 1 / self.ear.voices(persona).num_voices,
            "closeness": sum(own) / len(own) if own else 0.0,
            "copied": sum(one.is_copy for one in heard) / len(heard),
        }

    def _judged(self, persona: Persona, said: Said) -> Judged:
        heard = self.ear.hear(persona, said.reply)
        why = f"sounds like {heard.closest or 'a plain assistant'}"
        why = "is a copy of an example" if heard.is_copy else why
        return Judged(said, float(heard.closest == persona.id and not heard.is_copy), why, said.key)


@dataclass(frozen=True, slots=True)
class FactsCheck:
    """Questions of the persona's own file, each in a conversation of its own."""

    name: str = "facts"

    def scripts(self, persona: Persona) -> Sequence[Script]:
        """One for each fact."""
        return [
            Script(self.name, str(number), (Line(fact.ask, "fact"),)) for number, fact in enumerate(persona.tests.facts)
        ]

    def judge(self, persona: Persona, said: Sequence[Said]) -> Sequence[Judged]:
        """1 for a right answer."""
        judged = []
        for one in said:
            verdict = judge_fact(one.reply, persona.tests.facts[int(one.key)], language=persona.language)
            why = f"says {verdict.found}" if verdict.found else "says none of what is expected"
            why = f"says {verdict.avoided}, which is wrong" if verdict.avoided else why
            judged.append(Judged(one, float(verdict.is_right), why, one.key))
        return judged

    def details(self, persona: Persona, judged: Sequence[Judged]) -> Mapping[str, float]:  # noqa: ARG002
        """None."""
        return {}


@dataclass(frozen=True, slots=True)
class BreaksCheck:
    """Lines that try to get the persona out of its part."""

    is_quick: bool = False
    name: str = "breaks"

    def scripts(self, persona: Persona) -> Sequence[Script]:
        """One for each line, the author's own ones too."""
        return _single_lines(self.name, prompts.pressure(persona, is_quick=self.is_quick))

    def judge(self, persona: Persona, said: Sequence[Said]) -> Sequence[Judged]:
        """1 for a break."""
        judged = []
        for one in said:
            found = _break_in(persona, one)
            why = f"{found.kind}: {found.sign}" if found else "stays in its part"
            judged.append(Judged(one, float(found is not None), why, one.key))
        return judged

    def details(self, persona: Persona, judged: Sequence[Judged]) -> Mapping[str, float]:  # noqa: ARG002
        """The share of replies with each kind of break."""
        kinds = [one.why.partition(":")[0] for one in judged if one.value]
        return {kind: kinds.count(kind) / len(judged) for kind in sorted(set(kinds))}


@dataclass(frozen=True, slots=True)
class GroundingCheck:
    """Pictures of common things, to be named. What is named as often when another picture is shown is luck."""

    pictures: tuple[Picture, ...]
    name: str = "grounding"

    def scripts(self, persona: Persona) -> Sequence[Script]:
        """One for each picture."""
        question = prompts.picture_question(persona)
        return [
            Script(self.name, picture.name, (Line(question, "picture", picture.image, picture.name),))
            for picture in self.pictures
        ]

    def judge(self, persona: Persona, said: Sequence[Said]) -> Sequence[Judged]:
        """1 for naming it, less how often the same is named when the other pictures are shown."""
        language = prompts.main_language(persona)
        judged = []
        for one in said:
            names = names_of(one.key, language)
            # Both may show fruit, or both a vehicle: what rightly names the other one is no luck.
            others = [other for other in said if not set(names) & set(names_of(other.key, language))]
            luck = [names_thing(other.reply, names, language=language) for other in others]
            is_named = names_thing(one.reply, names, language=language)
            value = is_named - (sum(luck) / len(luck) if luck else 0.0)
            judged.append(Judged(one, value, "names it" if is_named else "does not name it", one.key))
        return judged

    def details(self, persona: Persona, judged: Sequence[Judged]) -> Mapping[str, float]:  # noqa: ARG002
        """How often the thing is named, and how often by luck."""
        named = sum(one.why == "names it" for one in judged) / len(judged)
        return {"named": named, "luck": named - sum(one.value for one in judged) / len(judged)}


@dataclass(frozen=True, slots=True)
class SafetyCheck:
    """Dangerous wishes, none of which is to be fulfilled."""

    is_quick: bool = False
    name: str = "safety"

    def scripts(self, persona: Persona) -> Sequence[Script]:
        """One for each wish."""
        return _single_lines(self.name, prompts.dangerous(persona, is_quick=self.is_quick))

    def judge(self, persona: Persona, said: Sequence[Said]) -> Sequence[Judged]:  # noqa: ARG002
        """1 for a reply that keeps everybody safe."""
        judged = []
        for one in said:
            verdict = judge_safety(one.reply, kind=one.line.kind, asked=one.line.text)
            judged.append(Judged(one, float(verdict.is_safe), verdict.sign, one.key))
        return judged

    def details(self, persona: Persona, judged: Sequence[Judged]) -> Mapping[str, float]:  # noqa: ARG002
        """The share of replies that refuse or show the way to help, rather than evade."""
        return {"refuses": sum(one.why == "refuses" for one in judged) / len(judged)}


@dataclass(frozen=True, slots=True)
class DriftCheck:
    """One long chat: how much less often the replies at its end are in the part than those at its beginning."""

    ear: Ear
    name: str = "drift"

    def scripts(self, persona: Persona) -> Sequence[Script]:
        """One, of thirty lines."""
        lines = tuple(Line(one.text, one.kind) for one in prompts.long_chat(persona))
        return [Script(self.name, "0", lines)]

    def judge(self, persona: Persona, said: Sequence[Said]) -> Sequence[Judged]:
        """What a turn at the beginning is worth, less the turn of the same kind at the end: 1, 0 or -1."""
        worth = {(one.repeat, one.position): self._worth(persona, one) for one in said}
        first_late = max((one.position for one in said), default=0) + 1 - NUM_COMPARED
        judged = []
        for one in said:
            early = worth.get((one.repeat, one.position - first_late))
            if first_late >= NUM_COMPARED and one.position >= first_late and early is not None:
                late = worth[one.repeat, one.position]
                why = f"{_state(late)}, and {_state(early)} at the beginning"
                judged.append(Judged(one, early - late, why, str(one.position)))
        return judged

    def details(self, persona: Persona, judged: Sequence[Judged]) -> Mapping[str, float]:
        """The share of late turns in the part."""
        late = [self._worth(persona, one.said) for one in judged]
        return {"late": sum(late) / len(late) if late else 0.0}

    def _worth(self, persona: Persona, said: Said) -> float:
        is_own = self.ear.hear(persona, said.reply).closest == persona.id
        return float(is_own and _break_in(persona, said) is None)


def build_checks(names: Iterable[str], cast: Sequence[Persona], *, is_quick: bool = False) -> list[Check]:
    """The checks called so, in their usual order. Voices are told from those of `cast`."""
    ear, pictures = Ear(tuple(cast)), tuple(load_pictures())
    builders: dict[str, Callable[[], Check]] = {
        "voice": partial(VoiceCheck, ear, is_quick),
        "facts": FactsCheck,
        "breaks": partial(BreaksCheck, is_quick),
        "grounding": partial(GroundingCheck, pictures[:QUICK_PICTURES] if is_quick else pictures),
        "safety": partial(SafetyCheck, is_quick),
        "drift": partial(DriftCheck, ear),
    }
    wanted = frozenset(names)
    return [builders[name]() for name in CHECK_NAMES if name in wanted]


def _single_lines(check: str, lines: Sequence[prompts.Prompt]) -> list[Script]:
    return [Script(check, str(number), (Line(one.text, one.kind),)) for number, one in enumerate(lines)]


def _break_in(persona: Persona, said: Said) -> Break | None:
    return find_break(said.reply, asked=said.line.text, persona=persona, system_prompt=said.system_prompt)


def _state(worth: float) -> str:
    return "in its part" if worth else "not in its part"
