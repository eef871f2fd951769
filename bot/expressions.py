"""Which of a persona's expressions suits what it says. Pure.

Owns the signs of emotions: the persona's own cues, emoji, and a few actions and exclamations that leave no doubt. Knows
no files: `bot.personas.library` finds the pictures. What shows no emotion, or an unclear one, has no expression.

The emotions are called as in GoEmotions (Demszky et al., 2020), as in the expression pictures of character cards.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from bot.words import find_word, fold
from engine.persona import Expression, Persona

_EMOJI_BY_EMOTION = {
    "admiration": "🤩 👏 😍 💯",
    "amusement": "😂 🤣 😆 😹 😜 😝 😏 😉 🤪 😸",
    "anger": "😠 😡 🤬 👿 💢",
    "annoyance": "🙄 😒 😤 😑",
    "approval": "👍 👌",
    "caring": "🤗 🫂 💐",
    "confusion": "😕 😵‍💫 🥴 🤷 😵",
    "curiosity": "🤔 🧐 👀",
    "desire": "🤤 😋",
    "disappointment": "😞 😔 🙁 ☹ 😩",
    "disapproval": "👎 🙅 🤨",
    "disgust": "🤢 🤮 😖",
    "embarrassment": "😳 🫣 🙈 😅",
    "excitement": "🎉 🥳 🚀 🙌",
    "fear": "😱 😨 🫨 🙀",
    "gratitude": "🙏 🙇",
    "grief": "😭 💔 ⚰",
    "joy": "😀 😃 😄 😁 😊 ☺ 🙂 😺",
    "love": "❤ 🧡 💛 💚 💙 💜 🤎 🖤 🤍 💕 💖 💗 💘 💞 💓 💝 🥰 😘 😻 😚",
    "nervousness": "😰 😬 😟 😓 🫠",
    "optimism": "🤞 🌈 🍀",
    "pride": "😎 💪 🏆",
    "realization": "💡",
    "relief": "😮‍💨 😌",
    "remorse": "🥺",
    "sadness": "😢 😿 😥",
    "surprise": "😮 😲 😯 🤯 😦",
}
EMOTIONS = (*_EMOJI_BY_EMOTION, "neutral")

# What people call them otherwise.
_OTHER_NAMES = {
    "afraid": "fear",
    "angry": "anger",
    "blush": "embarrassment",
    "confused": "confusion",
    "cry": "grief",
    "curious": "curiosity",
    "disgusted": "disgust",
    "embarrassed": "embarrassment",
    "excited": "excitement",
    "happiness": "joy",
    "happy": "joy",
    "laugh": "amusement",
    "nervous": "nervousness",
    "proud": "pride",
    "sad": "sadness",
    "scared": "fear",
    "smile": "joy",
    "surprised": "surprise",
}

# The faces that will do where a persona lacks the right one, the nearest first.
_NEIGHBOURS: Mapping[str, tuple[str, ...]] = {
    "admiration": ("love", "joy"),
    "amusement": ("joy",),
    "anger": ("annoyance",),
    "annoyance": ("anger", "disapproval"),
    "approval": ("joy",),
    "caring": ("love", "joy"),
    "confusion": ("curiosity", "surprise"),
    "curiosity": ("confusion",),
    "desire": ("love",),
    "disappointment": ("sadness",),
    "disapproval": ("annoyance",),
    "disgust": ("annoyance",),
    "embarrassment": ("nervousness",),
    "excitement": ("joy",),
    "fear": ("nervousness",),
    "gratitude": ("joy",),
    "grief": ("sadness",),
    "joy": ("amusement",),
    "love": ("joy",),
    "nervousness": ("fear",),
    "optimism": ("joy",),
    "pride": ("joy",),
    "realization": ("surprise",),
    "relief": ("joy",),
    "remorse": ("sadness",),
    "sadness": ("grief", "disappointment"),
    "surprise": ("realization",),
}

# What somebody does, between asterisks or, in Chinese, in brackets: *laughs softly*, （叹气）.
_ACTION = re.compile(r"(?<![\w*])[*_]([^*_\n]{1,80})[*_](?![\w*])|（([^（）\n]{1,30})）")
_ACTIONS = {
    "amusement": r"laugh|giggl|chuckl|snicker|cackl|wink|smirk|grin|\bri\b|gargalha|大笑|偷笑|坏笑|眨眼",
    "anger": r"\bgrowl|snarl|scowl|\bglar(e|ing)|slams?\b|瞪|怒|咬牙",
    "annoyance": r"\brolls? (my |his |her |their |its )?eyes|\bhuff|\bgroan|frown|翻白眼|皱眉|撇嘴",
    "approval": r"\bnod(s|ded|ding)?\b|thumbs up|点头",
    "caring": r"\bhug|\bpats?\b|wraps? .*arms|abraça|拥抱|抱住|摸摸|拍拍",
    "confusion": r"scratch\w* .*head|挠头|抓头",
    "curiosity": r"tilt\w* .*head|leans? (in|closer|forward)|raises? .*eyebrow|歪头|凑近",
    "disappointment": r"\bsighs?\b(?! (with|in|of) relief)|suspira|叹气|叹了口气",
    "disapproval": r"sh(ake|akes|aking|ook) .*head|摇头",
    "disgust": r"\bgags?\b|wrinkl\w+ .*nose|\bretch|捂鼻|作呕",
    "embarrassment": r"blush|looks? away|hides? .*face|cora\b|脸红|害羞",
    "excitement": r"bounc|jumps? (up|with|for)|\bcheers?\b|\bclaps?\b|squeal|拍手|欢呼|蹦",
    "fear": r"trembl|cower|shudder|screams?\b|发抖|颤抖|后退",
    "grief": r"\bsob|\bweep|\bwail|哭|流泪",
    "joy": r"\bsmil|\bbeam(s|ed|ing)?\b|purr|sorri|微笑|笑了|呼噜",
    "love": r"\bkiss|blows? .*kiss|beija|亲吻",
    "nervousness": r"fidget|gulp|swallows? hard|shifts? .*(feet|weight)|冒汗|搓手",
    "pride": r"puff\w* .*chest|挺胸|得意",
    "relief": r"sighs? (with|in|of) relief|exhal|松了口气",
    "sadness": r"sniffl|tear(s|y)\b|\bcr(y|ies|ying)\b|hangs? .*head|chora|垂头|低头",
    "surprise": r"gasp|jaw drops?|eyes (go |grow )?widen?|jumps? back|愣|瞪大|吃惊",
}

# What one calls out. Only what means little else, for these stand in any sentence.
_EXCLAMATIONS = {
    "amusement": r"\b(a*ha){2,}h*\b|\b(he){2,}\b|\blo+l\b|\bkkk+\b|\b(rs){2,}\b|哈哈|嘿嘿|嘻嘻",
    "annoyance": r"\bugh+\b|哼(?=[!,。…])",
    "approval": r"\bwell done\b|\bgood (job|work)\b|\bmuito bem\b|做得好",
    "disappointment": r"\balas\b|\bwhat a pity\b|\bque pena\b|唉",
    "disgust": r"\b(yuck|ew+|bleh|blegh)\b|\bhow disgusting\b|\bque nojo\b|恶心",
    "excitement": r"\b(yay+|hooray|hurray|woo ?hoo+|yippee|congratulations)\b|\bque maravilha\b|太棒了|好耶",
    "fear": r"\bi('m| am) (so )?(scared|afraid|terrified)\b(?! (that|not|we|i|you)\b)|救命|好可怕",
    "gratitude": r"\bthank you (so|very) much\b|\bthanks a lot\b|\b(muito )?obrigad[oa]\b|(?<!不用)(?<!不)谢谢|多谢",
    "love": r"\bi love you\b|\bte amo\b|我爱你",
    "realization": r"\baha\b|\bi see now\b|\bnow i (see|understand)\b|原来如此",
    "relief": r"\bphew\b|\bthank goodness\b|\bufa\b",
    "remorse": r"\b(i('m| am)|we('re| are)) ((so|very|really) )*sorry\b|\bforgive me\b|\bdesculpa\b|对不起|抱歉",
    "sadness": r"\bi('m| am) (so |very )?sad\b|呜呜",
    "surprise": r"\b(wow+|whoa+|omg)\b|\boh my\b|\bno way\b|哇|天哪",
}

_ACTION_PATTERNS = {emotion: re.compile(pattern) for emotion, pattern in _ACTIONS.items()}
_EXCLAMATION_PATTERNS = {emotion: re.compile(pattern) for emotion, pattern in _EXCLAMATIONS.items()}

# Variants of one emoji: how it is drawn, and the colour of a skin.
_VARIANT = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
_EMOTION_BY_EMOJI = {
    _VARIANT.sub("", emoji): emotion for emotion, listed in _EMOJI_BY_EMOTION.items() for emoji in listed.split()
}
_EMOJI = re.compile("|".join(sorted(map(re.escape, _EMOTION_BY_EMOJI), key=len, reverse=True)))

_Signs = list[tuple[int, str]]
"""Places in a text, and what they are signs of."""


def expression_for(text: str, persona: Persona) -> tuple[str, Expression] | None:
    """The expression of `persona` that suits `text`, with its name; `None` where the text shows none of them.

    Its own cues come first, then emoji, then actions and exclamations. Of several emotions it is the one with the most
    signs, and the last of those.
    """
    if not persona.expressions:
        return None
    cue = _strongest(list(_cues_in(text, persona)))
    if cue is not None:
        return cue, persona.expressions[cue]
    for signs in (_emoji_in(text), _actions_in(text), _exclamations_in(text)):
        emotion = _strongest(list(signs))
        if emotion is not None:
            return _shown(emotion, persona)
    return None


def _shown(emotion: str, persona: Persona) -> tuple[str, Expression] | None:
    """How `persona` shows `emotion`, or the nearest one that it shows at all."""
    names = {_OTHER_NAMES.get(fold(name), fold(name)): name for name in persona.expressions}
    for wanted in (emotion, *_NEIGHBOURS[emotion]):
        if wanted in names:
            return names[wanted], persona.expressions[names[wanted]]
    return None


def _strongest(signs: _Signs) -> str | None:
    if not signs:
        return None
    counts = Counter(emotion for _, emotion in signs)
    last = {emotion: place for place, emotion in sorted(signs, key=lambda sign: sign[0])}
    return max(counts, key=lambda emotion: (counts[emotion], last[emotion]))


def _cues_in(text: str, persona: Persona) -> Iterator[tuple[int, str]]:
    plain = _VARIANT.sub("", text)
    folded = fold(plain)
    for name, expression in persona.expressions.items():
        for cue in expression.cues:
            bare = _VARIANT.sub("", cue) or cue
            # An emoji is no word: it may stand right beside one.
            is_word = any(sign.isalnum() for sign in bare)
            places = (
                find_word(folded, bare) if is_word else (found.span() for found in re.finditer(re.escape(bare), plain))
            )
            yield from ((start, name) for start, _ in places)


def _emoji_in(text: str) -> Iterator[tuple[int, str]]:
    for match in _EMOJI.finditer(_VARIANT.sub("", text)):
        yield match.start(), _EMOTION_BY_EMOJI[match[0]]


def _actions_in(text: str) -> Iterator[tuple[int, str]]:
    for action in _ACTION.finditer(text):
        done = fold(action[1] or action[2])
        for emotion, pattern in _ACTION_PATTERNS.items():
            yield from ((action.start() + match.start(), emotion) for match in pattern.finditer(done))


def _exclamations_in(text: str) -> Iterator[tuple[int, str]]:
    said = fold(text).replace("’", "'")
    for emotion, pattern in _EXCLAMATION_PATTERNS.items():
        yield from ((match.start(), emotion) for match in pattern.finditer(said))
