"""The buttons under a reply. Pure.

Owns which there are and what they are called. Knows no platform, and not what pressing one does: `bot.steering` does.
"""

from bot.types import Alternatives, Control

NO_ALTERNATIVES = Alternatives(("",), 0)


def reply_controls(alternatives: Alternatives = NO_ALTERNATIVES, *, has_ratings: bool = False) -> tuple[Control, ...]:
    """The buttons of a reply of which there are `alternatives`."""
    number, count = alternatives.chosen + 1, len(alternatives.texts)
    back = (Control(f"◀ {number}/{count}", ("swipe",), "direction", "back"),) if number > 1 else ()
    onward = Control("▶" if number < count else "🔄", ("swipe",), "direction", "next")
    ratings = (Control("👍", ("rate",), "rating", "good"), Control("👎", ("rate",), "rating", "bad"))
    return (
        *back,
        onward,
        Control("⏩", ("continue",)),
        Control("✏️", ("edit",)),
        Control("↩️", ("undo",)),
        Control("🗑️", ("delete",)),
        *(ratings if has_ratings else ()),
    )
