"""The scaffold of a prompt in the languages that it is written in.

Owns those words. Knows neither conversations nor models.
"""

from dataclasses import dataclass

from engine.persona import Persona


@dataclass(frozen=True, slots=True)
class Phrases:
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


ENGLISH = Phrases(
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
CHINESE = Phrases(
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


# Whom a persona speaks to where nobody gave a name; of friends most languages know two kinds.
_STRANGERS = {
    "de": "Freund", "es": "amigo", "fr": "mon ami", "it": "amico", "ja": "あなた", "ko": "친구", "nl": "vriend",
    "pl": "przyjacielu", "pt": "amigo", "ru": "друг", "sv": "vän",
}  # fmt: skip


def phrases_of(persona: Persona) -> Phrases:
    """The scaffold for `persona`: Chinese for Chinese ones, else English, which every model reads."""
    return CHINESE if persona.language.split("-")[0] == "zh" else ENGLISH


def answer_line(persona: Persona, phrases: Phrases) -> str:
    """What Commedia asks of every persona."""
    return phrases.answer.format(
        name=persona.name,
        language=_languages(persona, phrases),
        length=phrases.lengths[persona.voice.length],
    )


def _languages(persona: Persona, phrases: Phrases) -> str:
    codes = dict.fromkeys(code.split("-")[0] for code in (persona.language, *persona.also_speaks))
    if phrases is CHINESE:
        others = [_LANGUAGES.get(code, code) for code in codes if code != "zh"]
        return f"用中文（也会说{'、'.join(others)}）" if others else "用中文"
    names = [_LANGUAGES.get(code, f"the language with the code {code}") for code in codes]
    return f"in {' or '.join(names)}"


def stranger_of(persona: Persona) -> str:
    """What `persona` calls people whose name it does not know."""
    return _STRANGERS.get(persona.language.split("-")[0], phrases_of(persona).stranger)
