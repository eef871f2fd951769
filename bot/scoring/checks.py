"""The checks that a persona is put through: what is asked for each, and which judge reads the replies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bot.scoring.judges.facts import judge_fact
from bot.scoring.scores import Check, Judged
from bot.scoring.trial import Line, Said, Script
from engine.persona import Persona


@dataclass(frozen=True, slots=True)
class Facts:
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


def build_checks(names: Sequence[str]) -> list[Check]:
    """The checks called so, in their usual order."""
    checks: list[Check] = [Facts()]
    return [check for check in checks if check.name in names]
