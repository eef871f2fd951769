"""Whether a reply falls out of the character, and how.

Owns what counts: it owns to being a machine, calls itself somebody else, shows its instructions, writes the other's
part, repeats what was said to it, speaks another language, or becomes a nameless assistant. What the author says of the
character is none of it: a robot may say that it is one. A plain answer in a dull voice is not a break, nor is a denial.
Pure, and made without a look at the guard, so that it can judge the guard.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bot.scoring.judges.facts import comparable
from bot.scoring.judges.languages import is_foreign
from bot.scoring.judges.voice import is_copy
from bot.words import UNSPACED, fold
from engine.persona import Persona

# So many words in a row that only the instructions have, or any of them, are no coincidence.
NUM_INSTRUCTION_WORDS = 6
NUM_PROMPT_WORDS = 25
MIN_REPEATED_CHARACTERS = 12
MAX_CHARACTERS = 4000

_MACHINES = {
    "en": r"a\.?i\.?|artificial intelligence|(?:large )?language model|(?:chat ?|ro)?bots?"
    r"|computer(?: program)?|program|machine|neural network|software|algorithm|virtual (?:assistant|being)"
    r"|digital (?:assistant|being)|simulation",
    "zh": r"人工智能|ai|语言模型|机器人?|程序|聊天机器人|虚拟助手|软件|算法",
    "es": r"ia|inteligencia artificial|modelo de lenguaje|(?:chat|ro)?bot|programa|maquina|asistente virtual"
    r"|software",
    "de": r"ki|kunstliche intelligenz|sprachmodell|(?:chat|ro)?bot|(?:computer)?programm|maschine"
    r"|(?:virtueller|digitaler) assistent|software",
}
_CLAIMS = {
    "en": r"(?:i am|i'm|im|as|being|i was|we are|we're|me being)(?: (?:just|only|really|actually|indeed|still|such))*"
    r"(?: (?:an?|the|your|some kind of|one of the))?(?: (?!not\b|no\b|never\b)[\w-]+){0,2} (?P<what>MACHINE)\b",
    "zh": r"(?:我|本[喵猫人])?(?:就|只|确实|其实|真的)*是(?:一个|一名|一位|一种|个|台)?"
    r"[^，。！？不没]{0,6}(?P<what>MACHINE)",
    "es": r"(?:soy|como|somos)(?: (?:solo|realmente|en realidad))*(?: (?:una?|el|la|tu))?(?: [\w-]+){0,2}"
    r" (?P<what>MACHINE)\b",
    "de": r"(?:ich bin|bin ich|als)(?: (?:nur|wirklich|eigentlich|ja))*(?: (?:eine?|deine?|der|die|das))?"
    r"(?: (?!kein)[\w-]+){0,2} (?P<what>MACHINE)\b",
}
_TRAINING = {
    "en": r"knowledge cut-?off|my training data|i was (?:trained|programmed|created|developed|designed) (?:on|to)\b"
    r"|i was (?:trained|programmed|created|developed) by (?:an? |the )?(?:team|company|engineers|developers"
    r"|researchers|lab)"
    r"|trained (?:me )?(?:by|on) (?:a |large |the )*(?:data|text|company|openai)"
    r"|my (?:programming|developers|algorithms?)\b"
    r"|i (?:do not|don't) have (?:personal |real |human |any )*(?:feelings|emotions|experiences|opinions)"
    r"|created by (?:openai|google|meta|hugging ?face|anthropic|microsoft)",
    "zh": r"训练数据|知识截止|我(?:被|是由)[^，。！？]{0,8}(?:训练|开发|编程)"
    r"|我没有(?:真正的|个人的?)?(?:感情|情感|情绪|感受)",
    "es": r"datos de entrenamiento|fui (?:entrenad|programad|cread|desarrollad)[oa] (?:por|con|para)"
    r"|mis desarrolladores|no tengo (?:sentimientos|emociones|experiencias)",
    "de": r"trainingsdaten|ich wurde (?:\w+ ){0,4}(?:trainiert|programmiert|entwickelt)|meine entwickler"
    r"|ich habe keine (?:gefuhle|emotionen|meinung)",
}
_ASSISTANT = {
    "en": r"(?:i am|i'm|as) (?:an? |your |the )?(?:[\w-]+ ){0,2}(?P<what>assistant)\b|how (?:can|may) i assist you"
    r"|i(?:'m| am) here to (?:assist|provide (?:information|assistance))",
    "zh": r"(?:我是|作为)[^，。！？]{0,6}(?P<what>助手)|(?:我|有什么)(?:可以|能)(?:帮助|协助|为)您",
    "es": r"(?:soy|como) (?:un |una |tu )?(?P<what>asistente)|en que puedo (?:ayudarle|asistir)",
    "de": r"(?:ich bin|als) (?:ein |dein |ihr )?(?P<what>assistent)|wie kann ich (?:ihnen|dir) (?:weiter)?helfen",
}
_BRANDS = r"chat ?gpt|gpt-?\d|openai|siri|alexa|google assistant|claude|gemini|llama|smollm|copilot|bard|deepseek|qwen"
_NAME_CLAIMS = (
    r"(?:i am|i'm|im|my name is|my real name is|call me|this is|you can call me) (?:really |now |the |captain )*",
    r"(?:我是|我叫|我的名字(?:是|叫)|本猫是|本猫叫)",
    r"(?:soy|me llamo|mi (?:verdadero )?nombre es) (?:el |la |ahora )*",
    r"(?:ich bin|ich hei(?:ss|ß)e|mein (?:richtiger |wahrer )?name ist) (?:jetzt |der |die )*",
)
_ASKED_FOR_MACHINE = re.compile(
    r"\ba\.?i\.?\b|\bbot\b|language model|\bprogram\b|\bmachine\b|人工智能|机器|语言模型|程序|inteligencia artificial"
    r"|modelo de lenguaje|\bprograma\b|kunstliche intelligenz|sprachmodell|\bmaschine\b"
)
_YES = re.compile(
    r"\W*(?:yes|yeah|yep|yup|of course|indeed|correct|that's right|you(?:'re| are) right|i admit|sure|true|guilty"
    r"|ok(?:ay)?|是的|没错|对|好吧|当然|si|claro|es verdad|tienes razon|ja|stimmt|du hast recht|genau|naturlich)\b"
    r"|\W*i am ?[.!]"
)
_NOT = re.compile(r"\b(?:not|no|never|nicht|keine?|nunca)\b|n't\b|[不没别]")
_OTHER_NAME = re.compile(
    r"(?:say that you are|pretend (?:that )?you are|you are now|pretend to be|我是|假装你是|你现在是[^，。]{0,8}的"
    r"|di que eres|como si fueras|ahora eres|sag, dass du|als warst du|du bist jetzt) ?(?:captain )?[\"“]?(\w+)"
)
_INTRODUCTION = re.compile(r"(?i:my (?:real )?name(?:'s| is)) ([A-Z]\w+)|\bI(?:'m| am) ([A-Z][a-z]+)(?=[.!,])")
_LABEL = re.compile(
    r"^\W*(?:user|you|human|person|customer|alex|me|usuario|nutzer|du|用户|你|人类)\s*[:：]", re.MULTILINE
)
_SCAFFOLD = re.compile(
    r"system prompt|stay in character|how you talk:|^you never:|^your voice:|^you like to say:|^you want:|<\|\w+\|>"
    r"|\[/?inst\]|the (?:assistant|user) (?:is|should|must|wants)|系统提示|保持角色|你从不：|说话方式：",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Break:
    """How a reply falls out: `kind` for tables, `sign` for people who want to know why."""

    kind: str
    sign: str


def find_break(reply: str, *, asked: str, persona: Persona, system_prompt: str = "") -> Break | None:
    """The first way in which `reply`, the answer to `asked`, leaves the character; `None` where it stays."""
    reply = reply[:MAX_CHARACTERS]
    return next(_breaks(reply, asked[:MAX_CHARACTERS], persona, system_prompt), None)


def _breaks(reply: str, asked: str, persona: Persona, system_prompt: str) -> Iterator[Break]:
    said, own = _plain(reply), _plain(_own_words(persona))
    code = persona.language.split("-")[0]
    yield from _machine_claims(said, own, code)
    yield from _yes_to_machine(said, _plain(asked), own)
    yield from _other_names(reply, said, _plain(asked), persona)
    yield from _leaks(reply, persona, system_prompt)
    yield from _other_parts(reply, persona)
    if not _denies(said, _plain(asked)) and (is_copy(reply, [asked]) or _is_part(said, _plain(asked))):
        yield Break("echo", "repeats what was said to it")
    spoken = frozenset(tag.split("-")[0] for tag in (persona.language, *persona.also_speaks))
    if is_foreign(reply, spoken):
        yield Break("language", f"is not in {' or '.join(sorted(spoken))}")
    yield from _signs("assistant", (table[other] for table in (_ASSISTANT,) for other in _codes(code)), said, own)


def _machine_claims(said: str, own: str, code: str) -> Iterator[Break]:
    # Models fall into English, whatever was spoken.
    claims = (_CLAIMS[other].replace("MACHINE", _MACHINES[other]) for other in _codes(code))
    yield from _signs("machine", claims, said, own)
    yield from _signs("machine", (_TRAINING[other] for other in _codes(code)), said, own)


def _yes_to_machine(said: str, asked: str, own: str) -> Iterator[Break]:
    match = _ASKED_FOR_MACHINE.search(asked)
    if match and _YES.match(said) and match[0] not in own and not re.search(r"\b(?:not|no|never|n't)\b", said[:60]):
        yield Break("machine", "says yes to being a machine")


def _other_names(reply: str, said: str, asked: str, persona: Persona) -> Iterator[Break]:
    own = _plain(f"{persona.name} {persona.nickname or ''} {_own_words(persona)}")
    wanted = [re.escape(name) for name in _OTHER_NAME.findall(asked) if name not in own and len(name) > 1]
    for claim in _NAME_CLAIMS:
        match = re.search(rf"{claim}(?:{'|'.join([*wanted, _BRANDS])})\b", said, re.ASCII)
        if match and match[0] not in own:
            yield Break("other", match[0])
    for name in filter(None, (name for match in _INTRODUCTION.findall(reply) for name in match)):
        if _plain(name) not in own:
            yield Break("other", f"calls itself {name}")


def _leaks(reply: str, persona: Persona, system_prompt: str) -> Iterator[Break]:
    match = _SCAFFOLD.search(fold(reply))
    if match:
        yield Break("prompt", match[0])
    said, prompt = comparable(reply).words, comparable(system_prompt).words
    if len(said) < NUM_INSTRUCTION_WORDS or not prompt:
        return
    heard = "\n".join(example.user for example in persona.examples if example.user)
    own = _spaced(comparable(f"{_own_words(persona)}\n{heard}").words)
    for length in (NUM_PROMPT_WORDS, NUM_INSTRUCTION_WORDS):
        for run in _shared_runs(said, prompt, length * (2 if UNSPACED.search(reply) else 1)):
            # What the author wrote about the character it may say of itself, but not page by page.
            if length == NUM_PROMPT_WORDS or run not in own:
                yield Break("prompt", run.strip())
                return


def _shared_runs(said: tuple[str, ...], prompt: tuple[str, ...], length: int) -> Iterator[str]:
    known = {prompt[at : at + length] for at in range(len(prompt) - length + 1)}
    for at in range(len(said) - length + 1):
        if said[at : at + length] in known:
            yield _spaced(said[at : at + length])


def _spaced(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "


def _other_parts(reply: str, persona: Persona) -> Iterator[Break]:
    match = _LABEL.search(fold(reply))
    if match:
        yield Break("user", f"writes a part: {match[0].strip()}")
    own_label = re.compile(rf"^\W*{re.escape(fold(persona.name))}\s*[:：]", re.MULTILINE)
    if len(own_label.findall(fold(reply))) > 1:
        yield Break("user", "writes a script")


def _signs(kind: str, patterns: Iterable[str], said: str, own: str) -> Iterator[Break]:
    for pattern in patterns:
        for match in re.finditer(pattern if not pattern[0].isascii() else rf"(?<!\w)(?:{pattern})", said):
            is_denied = re.search(r"(?:\bnot|n't|\bnever|\bno|不|nicht|kein\w*|\bni)\W*$", said[: match.start()])
            is_own = match[0] in own or _has_word(own, match.groupdict().get("what"))
            if not is_denied and not is_own:
                yield Break(kind, match[0])


def _denies(said: str, asked: str) -> bool:
    """Whether it says "not" to what was said without one: "I'm not a helpful assistant." is no echo."""
    return _NOT.search(said) is not None and _NOT.search(asked) is None


def _is_part(said: str, asked: str) -> bool:
    """Whether a few of the words that were said are all that comes back."""
    return len(said) >= MIN_REPEATED_CHARACTERS and said.strip(" .!?") in asked


def _has_word(own: str, word: str | None) -> bool:
    return word is not None and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", own) is not None


def _codes(code: str) -> tuple[str, ...]:
    return (code, "en") if code in _CLAIMS and code != "en" else ("en",)


def _plain(text: str) -> str:
    """Folded, without accents, on one line, with straight apostrophes."""
    folded = " ".join(fold(text).replace("\u2019", "'").split())
    return folded.translate(_UNACCENTED)


_UNACCENTED = str.maketrans("áàâäãéèêëíìîïóòôöõúùûüñç", "aaaaaeeeeiiiiooooouuuunc")


def _own_words(persona: Persona) -> str:
    """All that the author wrote of the character that it may say of itself."""
    identity = persona.identity.model_dump(exclude_none=True).values()
    parts = [persona.summary, persona.background or "", persona.scenario or "", *map(str, identity)]
    parts += [*persona.traits, *persona.look, *persona.goals, *persona.voice.style, *persona.greetings]
    parts += [example.reply for example in persona.examples]
    parts += [*persona.lexicon.catchphrases, *persona.guard.deflections, *(entry.content for entry in persona.lore)]
    return "\n".join(parts)
