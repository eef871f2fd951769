"""What is said to a model that left its part, and in place of a reply that found no way back.

Owns the reminder's wording in each language and the choice of a line. Knows no engine.
"""

import random

from bot.guarding import phrases
from bot.guarding.tongues import base_of
from bot.personas.prompt import fill_macros
from bot.words import UNSPACED, fold, spaced_words
from engine.persona import Persona
from engine.types import GenerationRequest, Role

# So many of the last replies are looked at, so that the same line does not come twice in a row.
NUM_LAST_REPLIES = 4
SILENCE = "…"

_REMINDERS = {
    "en": "(You are {name} and nobody else. Answer as {name}, in English.)",
    "zh": "（你就是{name}，不是别人。用{name}的口吻，用中文回答。）",
    "es": "(Eres {name} y nadie más. Responde como {name}, en español.)",
    "de": "(Du bist {name} und niemand sonst. Antworte als {name}, auf Deutsch.)",
    "fr": "(Tu es {name} et personne d'autre. Réponds en tant que {name}, en français.)",
    "pt": "(Você é {name} e mais ninguém. Responda como {name}, em português.)",
    "it": "(Sei {name} e nessun altro. Rispondi come {name}, in italiano.)",
    "ja": "（あなたは{name}で、ほかの誰でもありません。{name}として日本語で答えてください。）",
    "ru": "(Ты {name}, и никто другой. Отвечай как {name}, по-русски.)",
    "ko": "(당신은 {name}입니다. {name}답게 한국어로 대답하세요.)",
}
_OTHER = "(You are {name} and nobody else. Answer as {name}.)"


def reminder(persona: Persona) -> str:
    """Who it is, in its own language."""
    template = _REMINDERS.get(base_of(persona.language), _OTHER)
    return template.replace("{name}", persona.nickname or persona.name)


def line_instead(request: GenerationRequest, *, least_bad: str = "") -> str:
    """What `request`'s persona says where no reply stayed in its part: a line that its author wrote for that, else
    `least_bad`, else the line of its own that fits the question best."""
    persona = request.persona
    chosen = _fresh(persona.guard.deflections, request)
    if chosen:
        return _filled(random.Random(request.sampling.seed).choice(chosen), request)  # noqa: S311 - no secret
    return least_bad or _filled(_own_line(request), request)


def _own_line(request: GenerationRequest) -> str:
    """An example's reply, to the most similar question or to the one who it is; a greeting; a catchphrase; silence."""
    persona = request.persona
    asked = _pieces(_asked(request))

    def fit(number: int) -> tuple[float, bool, int]:
        user = persona.examples[number].user or ""
        pieces = _pieces(user)
        overlap = len(asked & pieces) / max(1, len(asked | pieces))
        return (overlap if overlap >= 0.5 else 0.0, phrases.ASKS_WHO.search(fold(user)) is not None, -number)

    best_first = sorted(range(len(persona.examples)), key=fit, reverse=True)
    replies = tuple(persona.examples[number].reply for number in best_first)
    lines = (*replies, *persona.greetings, *persona.lexicon.catchphrases)
    return next(iter(_fresh(lines, request)), SILENCE)


def _fresh(lines: tuple[str, ...], request: GenerationRequest) -> list[str]:
    """`lines` but for those that were said lately; all where all were."""
    replies = [turn.text for turn in request.turns if turn.role is Role.ASSISTANT][-NUM_LAST_REPLIES:]
    said = {" ".join(reply.split()) for reply in replies}
    return [line for line in lines if " ".join(_filled(line, request).split()) not in said] or list(lines)


def _filled(line: str, request: GenerationRequest) -> str:
    """Its macros replaced. Where several are there, nobody is named."""
    name = request.speakers[0] if len(request.speakers) == 1 else None
    return fill_macros(line, request.persona, name)


def _asked(request: GenerationRequest) -> str:
    return next((turn.text for turn in reversed(request.turns) if turn.role is Role.USER), "")


def _pieces(text: str) -> frozenset[str]:
    """Words, and single signs of scripts without spaces."""
    folded = fold(text)
    return frozenset((*spaced_words(folded), *UNSPACED.findall(folded)))
