"""A persona and a conversation in, a request to the engine out. Pure: no files, no clock, no chance.

Owns the wording of the system prompt, macros and which lore is told. Knows no model: the engine renders the chat
template and drops turns that do not fit.

The prompt has two parts. The first depends on the persona alone, so that all its conversations share their beginning
in the KV cache; the second has what varies: who is there, and lore. Small models read it too, and CPUs take long over
every token: it is compact, speaks to "you", and puts the strongest facts first.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bot.words import UNSPACED, fold, has_any
from engine.persona import Persona
from engine.types import Asker, GenerationRequest, SamplingSettings, Turn

# Examples beyond this are left to the persona encoder. A Chinese character costs about as many tokens as three letters.
MAX_EXAMPLE_CHARACTERS = 250
NUM_TURNS_SEARCHED_FOR_LORE = 4
MAX_LABEL_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class _Phrases:
    """The scaffold of the prompt in one language."""

    you_are: str
    labels: dict[str, str]
    colon: str
    separator: str
    end: str
    gap: str
    user: str
    stranger: str
    somebody: str
    answer: str
    lengths: dict[str, str]
    formalities: dict[str, str]
    alone_with: str
    group: str


_ENGLISH = _Phrases(
    you_are="You are {name}.",
    labels={
        "pronouns": "Pronouns",
        "age": "Age",
        "species": "Species",
        "occupation": "Work",
        "home": "Home",
        "look": "You look",
        "traits": "You are",
        "style": "Your voice",
        "catchphrases": "You like to say",
        "goals": "You want",
        "boundaries": "You never",
        "scenario": "Now",
        "examples": "How you talk:",
        "lore": "You know:",
    },
    colon=": ",
    separator="; ",
    end=".",
    gap=" ",
    user="User",
    stranger="friend",
    somebody="Someone",
    answer="Stay in character as {name}. Answer {language}{length}.",
    lengths={
        "short": ", in one or two short sentences",
        "medium": ", in two to four sentences",
        "long": ", in detail",
    },
    formalities={"casual": "casual", "neutral": "", "formal": "formal and polite"},
    alone_with="You are talking with {user}.",
    group="Several people are here; each message begins with its writer's name. Answer the last one, "
    "without a name in front.",
)
_CHINESE = _Phrases(
    you_are="你是{name}。",
    labels={
        "pronouns": "称呼",
        "age": "年龄",
        "species": "种族",
        "occupation": "职业",
        "home": "住处",
        "look": "外貌",
        "traits": "性格",
        "style": "说话方式",
        "catchphrases": "口头禅",
        "goals": "心愿",
        "boundaries": "你从不",
        "scenario": "此刻",
        "examples": "对话示例：",
        "lore": "你知道：",
    },
    colon="：",
    separator="、",
    end="。",
    gap="",
    user="用户",
    stranger="朋友",
    somebody="有人",
    answer="始终以{name}的身份，{language}{length}回答。",
    lengths={"short": "，用一两句短话", "medium": "，用两到四句话", "long": "，详细地"},
    formalities={"casual": "随意", "neutral": "", "formal": "正式而有礼"},
    alone_with="你正在和{user}聊天。",
    group="这里有好几个人，每条消息以发言者的名字开头。回答最后一条，不要在前面写名字。",
)
_LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "nb": "Norwegian", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip

_MACRO = re.compile(r"\{\{\s*(char|user)\s*\}\}", re.IGNORECASE)
# What chat templates and vision models give a meaning to. Written by a user it is only text, and has to stay so.
_CONTROL_MARKER = re.compile(
    r"[<\[](?=[|｜]|/?s>|/?inst\]|<?/?sys>>|/?(?:start|end)_of_(?:turn|image)>|(?:bos|eos|pad|unk|mask)>"
    r"|/?(?:image|img|video|audio|think|tool_call|fake_token_around_image|global-img)>)",
    re.IGNORECASE,
)
_ROLES = frozenset({"system", "user", "assistant", "developer", "tool", "model", "human"})


def build_request(
    persona: Persona,
    turns: Sequence[Turn],
    *,
    sampling: SamplingSettings,
    user_name: str | None = None,
    is_group: bool = False,
    seed: int | None = None,
    asker: Asker | None = None,
    reply_start: str = "",
) -> GenerationRequest:
    """The request for `persona`'s reply to the last of `turns`. `asker` is for whom the engine makes it.

    `sampling` is what the configuration says; the persona's own settings go over it, and `seed` over both. In a group
    the caller puts `speaker_label` before each user's text; `user_name` is not told then.
    """
    phrases = _phrases_of(persona)
    spoken_to = None if is_group or user_name is None else speaker_label(user_name)
    parts = [*_stable_lines(persona, phrases), *_varying_lines(persona, phrases, turns, spoken_to, is_group=is_group)]
    settings = replace(
        sampling,
        **persona.sampling.model_dump(exclude_none=True),
        stop=(*sampling.stop, f"\n{phrases.user}:"),  # small models go on with the user's part
    )
    return GenerationRequest(
        persona=persona,
        system_prompt=fill_macros("\n".join(parts), persona, spoken_to),
        turns=tuple(replace(turn, text=_without_markers(turn.text)) for turn in turns),
        sampling=settings if seed is None else replace(settings, seed=seed),
        asker=asker,
        reply_start=reply_start,
    )


def speaker_label(display_name: str) -> str:
    """`display_name` as one harmless line, for turns in a group: `f"{speaker_label(name)}: {text}"`."""
    normal = unicodedata.normalize("NFKC", display_name)
    # Also the signs that could end a label or begin a marker of some chat template.
    kept = (" " if unicodedata.category(sign)[0] in "CZ" or sign in ":<>[]{}|#`*\\" else sign for sign in normal)
    label = " ".join("".join(kept).split())[:MAX_LABEL_CHARACTERS].strip()
    if not label:
        return "someone"
    return f"({label})" if label.casefold() in _ROLES else label


def fill_macros(text: str, persona: Persona, user_name: str | None = None) -> str:
    """`text` with `{{char}}` and `{{user}}` replaced, in any case. Greetings need it too."""
    user = speaker_label(user_name) if user_name else _phrases_of(persona).stranger
    # In one pass: a user called "{{char}}" stays called so.
    return _MACRO.sub(lambda match: persona.name if match[1].lower() == "char" else user, text)


def _stable_lines(persona: Persona, phrases: _Phrases) -> Iterator[str]:
    """What depends on the persona alone."""
    yield f"{phrases.you_are.format(name=persona.name)}{phrases.gap}{_sentence(persona.summary, phrases)}"
    identity = persona.identity.model_dump(exclude_none=True)
    facts = [f"{phrases.labels[key]}{phrases.colon}{_bare(str(value))}{phrases.end}" for key, value in identity.items()]
    yield from filter(None, [phrases.gap.join(facts)])
    if persona.background:
        yield _sentence(persona.background, phrases)
    formality = phrases.formalities[persona.voice.formality]
    yield from _labelled("traits", persona.traits, phrases)
    yield from _labelled("look", persona.look, phrases)
    yield from _labelled("style", [*persona.voice.style, *filter(None, [formality])], phrases)
    yield from _labelled("catchphrases", [f'"{phrase}"' for phrase in persona.lexicon.catchphrases], phrases)
    yield from _labelled("goals", persona.goals, phrases)
    yield from _labelled("boundaries", persona.boundaries, phrases)
    yield from _labelled("scenario", filter(None, [persona.scenario]), phrases)
    yield from _example_lines(persona, phrases)
    yield phrases.answer.format(
        name=persona.name,
        language=_language_phrase(persona, phrases),
        length=phrases.lengths[persona.voice.length],
    )


def _varying_lines(
    persona: Persona, phrases: _Phrases, turns: Sequence[Turn], user_name: str | None, *, is_group: bool
) -> Iterator[str]:
    """What changes from conversation to conversation, and from turn to turn."""
    if is_group:
        yield phrases.group
    elif user_name is not None:
        yield phrases.alone_with.format(user=user_name)
    told = [" ".join(content.split()) for content in _lore_for(persona, turns)]
    if told:
        yield " ".join([phrases.labels["lore"], *told])


def _example_lines(persona: Persona, phrases: _Phrases) -> Iterator[str]:
    """The first examples, as many as have room and at least one, each a quotation and its answer."""
    num_characters = 0
    for number, example in enumerate(persona.examples):
        user, reply = " ".join((example.user or "").split()), " ".join(example.reply.split())
        num_characters += sum(3 if UNSPACED.match(sign) else 1 for sign in user + reply)
        if number and num_characters > MAX_EXAMPLE_CHARACTERS:
            return
        if not number:
            yield phrases.labels["examples"]
        # Not "User: …" and "Mira: …": small models then write a script, with names and both parts.
        yield f"> {user}\n{reply}" if user else reply


def _lore_for(persona: Persona, turns: Sequence[Turn]) -> Iterator[str]:
    """The lore to be told now, in the author's order, each text once."""
    recent = fold("\n".join(turn.text for turn in turns[-NUM_TURNS_SEARCHED_FOR_LORE:]))
    told: set[str] = set()
    for entry in persona.lore:
        is_due = entry.is_constant or has_any(recent, entry.keys)
        if is_due and entry.content not in told:
            told.add(entry.content)
            yield entry.content


def _labelled(label: str, items: Iterable[str], phrases: _Phrases) -> Iterator[str]:
    listed = phrases.separator.join(_bare(item) for item in items)
    if listed:
        yield _sentence(f"{phrases.labels[label]}{phrases.colon}{listed}", phrases)


def _phrases_of(persona: Persona) -> _Phrases:
    return _CHINESE if persona.language.split("-")[0] == "zh" else _ENGLISH


def _language_phrase(persona: Persona, phrases: _Phrases) -> str:
    if phrases is _CHINESE:
        return "用中文"
    code = persona.language.split("-")[0]
    return f"in {_LANGUAGES.get(code, f'the language with the code {persona.language}')}"


def _bare(text: str) -> str:
    """`text` on one line, without the stop at its end: it goes into a list."""
    return " ".join(text.split()).rstrip(".。")


def _sentence(text: str, phrases: _Phrases) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?", "…", "。", "！", "？", '"', "”", "」")) else f"{line}{phrases.end}"


def _without_markers(text: str) -> str:
    """`text` with the markers of chat templates broken by a space, so that nobody writes a system turn."""
    return _CONTROL_MARKER.sub(lambda match: f"{match[0]} ", text)
