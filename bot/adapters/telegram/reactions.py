"""Emoji under messages: which of them Telegram takes from a bot, and what changed when somebody put some. Pure."""

from collections.abc import Iterator, Sequence

from telegram import MessageReactionUpdated, ReactionType, ReactionTypeCustomEmoji, ReactionTypeEmoji
from telegram.constants import ReactionEmoji

_SKIN_TONES = range(0x1F3FB, 0x1F400)
_VARIATION = 0xFE0F


def _bare(emoji: str) -> str:
    """Without skin tone and variation sign."""
    return "".join(sign for sign in emoji if ord(sign) != _VARIATION and ord(sign) not in _SKIN_TONES)


_ALLOWED = {_bare(emoji.value): emoji.value for emoji in ReactionEmoji}
_NEAREST = {
    **dict.fromkeys("😂😆😹", "🤣"),
    **dict.fromkeys("😀😃😄🙂😅", "😁"),
    **dict.fromkeys("😊☺😌", "🥰"),
    **dict.fromkeys("♥💙💚💛💜🧡🖤💖💕💗", "❤"),
    **dict.fromkeys("😮😲😯", "🤯"),
    **dict.fromkeys("🙁☹😔😞😟", "😢"),
    **dict.fromkeys("😠💢", "😡"),
    **dict.fromkeys("🥳🎊", "🎉"),
    **dict.fromkeys("✨⭐🌟", "🤩"),
    **dict.fromkeys("✅✔", "👌"),
    "🙄": "🤨",
    "🤭": "🙊",
    "😧": "😨",
}


def allowed_reaction(emoji: str) -> str | None:
    """`emoji` as Telegram takes it for a reaction, or its nearest relative; `None` where there is none."""
    bare = _bare(emoji.strip())
    return _ALLOWED.get(bare) or _ALLOWED.get(_NEAREST.get(bare, ""))


def changes_of(update: MessageReactionUpdated) -> Iterator[tuple[str, bool]]:
    """Each emoji that was put or taken away, and whether it was put. Custom ones are named by their id."""
    before, after = _names(update.old_reaction), _names(update.new_reaction)
    yield from ((name, False) for name in before if name not in after)
    yield from ((name, True) for name in after if name not in before)


def _names(reactions: Sequence[ReactionType]) -> list[str]:
    names = []
    for reaction in reactions:
        if isinstance(reaction, ReactionTypeEmoji):
            names.append(str(reaction.emoji))
        elif isinstance(reaction, ReactionTypeCustomEmoji):
            names.append(reaction.custom_emoji_id)
    return names
