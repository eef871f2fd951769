"""How the contract suite talks to a platform: people who write, and eyes on what the bot shows them.

To hold an adapter to the contract, write a class with `Harness`'s members around its loopback fake, and add a context
manager that yields it to `HARNESSES` in `test_contract.py`. `FakeHarness` there is the example. What a platform does
not have, it says in `traits`; the tests about it are skipped for it.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from bot.adapters.base import Adapter, MessageHandler
from bot.commands import CommandTable

Chat = Literal["direct", "other", "group"]
"""Two direct chats with different people, and a room with several."""

Trait = Literal["groups", "replies", "other", "names", "buttons", "edits", "deletions", "reactions"]
"""Rooms with several people; replies to a certain message; a second direct chat; people who have names; buttons under
messages; people who edit or delete what they wrote, and who put emoji under messages."""

ALL_TRAITS: frozenset[Trait] = frozenset(
    {"groups", "replies", "other", "names", "buttons", "edits", "deletions", "reactions"}
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A message of the bot as people see it now. `reply_to` is the id of the message that it replies to, `buttons` are
    the labels of what can be pressed."""

    id: str
    text: str
    reply_to: str | None = None
    buttons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a command answered: its text, and the pictures as they arrived."""

    text: str
    pictures: tuple[bytes, ...] = ()


class Harness(Protocol):
    """A running adapter, its platform and the people there. Every method may wait, but never for ever."""

    adapter: Adapter
    traits: frozenset[Trait]

    async def say(
        self,
        text: str,
        *,
        chat: Chat = "direct",
        picture: bytes | None = None,
        reply_to: str | None = None,
        mentions_bot: bool = False,
    ) -> str:
        """Let a person write, and return the message's id as `IncomingMessage.message_id` will have it.

        `picture` is a PNG file. `reply_to` is the id of any earlier message in that chat. With `mentions_bot` the
        platform's way to mention the bot stands before the text.
        """

    async def shown(self, chat: Chat = "direct") -> list[Shown]:
        """The bot's messages in that chat as people see them at this moment, oldest first."""

    async def use_command(self, path: tuple[str, ...], arguments: Mapping[str, str]) -> str:
        """Let a person use a command in the direct chat, the platform's native way; the text that answers it."""

    async def ask(
        self,
        path: tuple[str, ...],
        arguments: Mapping[str, str],
        *,
        picture: bytes | None = None,
        reply_to: str | None = None,
    ) -> Answered:
        """Like `use_command`, with a picture, or on a message of the direct chat; waits until the answer is whole.

        The answer's text is "Here is what I found." or longer, and its last picture is the last thing to arrive.
        """

    async def press(self, message_id: str, label: str, *, chat: Chat = "direct", by_other: bool = False) -> None:
        """Let whoever writes in that chat, or somebody else, press a button under a message of the bot."""

    async def edit_said(self, message_id: str, text: str, *, chat: Chat = "direct") -> None:
        """Let a person change what they wrote in that chat."""

    async def delete_said(self, message_id: str, *, chat: Chat = "direct") -> None:
        """Let a person delete what they wrote in that chat."""

    async def react(self, message_id: str, emoji: str, *, chat: Chat = "direct") -> None:
        """Let whoever writes in that chat put an emoji under a message of the bot."""

    async def stop(self) -> None:
        """Cancel the adapter's `run`, and wait for its end."""


OpenHarness = Callable[[MessageHandler, CommandTable], AbstractAsyncContextManager[Harness]]
"""Starts the platform and the adapter, and yields once messages arrive; stops both in the end."""
