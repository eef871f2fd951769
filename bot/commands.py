"""One table of commands. Adapters render it natively: slash commands, a BotFather menu, buttons on the page.

Owns names, descriptions and what a command does. Knows no platform: it gets a `CommandCall`, gives a `CommandReply`.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bot.types import Author, ChatKind, Room


@dataclass(frozen=True, slots=True)
class CommandCall:
    """Somebody used a command."""

    room: Room
    kind: ChatKind
    author: Author
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """Something to pick: shown as a button or an autocompletion. `value` is at most 64 bytes."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class CommandReply:
    """What a command answers. `choices` fill the argument `choice_argument` of the command path `choice_path`."""

    text: str
    is_private: bool = False
    choices: tuple[Choice, ...] = ()
    choice_path: tuple[str, ...] = ()
    choice_argument: str = ""


@dataclass(frozen=True, slots=True)
class Argument:
    """A command's argument. `suggest` completes what was typed so far."""

    name: str
    description: str
    is_required: bool = True
    suggest: Callable[[CommandCall, str], Awaitable[tuple[Choice, ...]]] | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `path` is `("reset",)` or `("persona", "use")`: at most a group and a name."""

    path: tuple[str, ...]
    description: str
    run: Callable[[CommandCall], Awaitable[CommandReply]]
    arguments: tuple[Argument, ...] = ()


class CommandTable:
    """All commands, found by path. Raises `ValueError` for two commands of one path."""

    def __init__(self, commands: tuple[Command, ...]) -> None:
        self._by_path = {command.path: command for command in commands}
        if len(self._by_path) != len(commands):
            raise ValueError("two commands have the same path")

    def __iter__(self) -> Iterator[Command]:
        return iter(self._by_path.values())

    def find(self, *path: str) -> Command | None:
        """The command at `path`, if there is one."""
        return self._by_path.get(path)

    def match(self, text: str) -> tuple[Command, dict[str, str]] | None:
        """The command that was typed as `/persona use Mina`, with its arguments; the last one takes the rest."""
        if not text.startswith("/"):
            return None
        words = text[1:].split()
        for length in (2, 1):
            command = self.find(*(word.lower() for word in words[:length])) if len(words) >= length else None
            if command:
                names = [argument.name for argument in command.arguments]
                values = " ".join(words[length:]).split(maxsplit=len(names) - 1) if names else []
                return command, dict(zip(names, values, strict=False))
        return None
