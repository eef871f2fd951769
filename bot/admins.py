"""Who may change what everybody meets, such as the personas.

Owns the question alone: what may be changed is for the commands. Knows people by their platform and id, never by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bot.errors import CommandError
from bot.types import Author


@dataclass(frozen=True, slots=True)
class Admins:
    """Those in `names`, as `platform:user_id`, and everybody on platforms that only whoever runs the bot reaches."""

    names: tuple[str, ...] = ()
    trusts: frozenset[str] = frozenset({"console"})

    def is_admin(self, author: Author) -> bool:
        """Whether `author` is one."""
        return not author.is_bot and (author.platform in self.trusts or name_of(author) in _folded(self.names))

    def require(self, author: Author) -> None:
        """Raises `CommandError` for everybody else, with how to become one."""
        if not self.is_admin(author):
            raise CommandError(
                "Sorry, that is for my admins. Whoever runs me can make you one: "
                f'in commedia.toml, under [chat], admins = ["{name_of(author)}"]'
            )


def name_of(author: Author) -> str:
    """What `author` is called in the settings."""
    return f"{author.platform}:{author.user_id}"


def _folded(names: Iterable[str]) -> frozenset[str]:
    parts = (name.partition(":") for name in names)
    return frozenset(f"{platform.strip().lower()}:{user_id.strip()}" for platform, _, user_id in parts)
