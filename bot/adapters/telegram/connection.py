"""What all chats of one bot share while it is connected. Only holds it together."""

from dataclasses import dataclass, field

from bot.adapters.pacing import Pacer
from bot.adapters.telegram.buttons import CommandButtons
from bot.adapters.telegram.chats import KnownChats
from bot.adapters.telegram.client import TelegramClient
from bot.adapters.telegram.stickers import Stickers


@dataclass(slots=True)
class Connection:
    """`has_drafts`: the server has not refused a draft yet."""

    client: TelegramClient
    chats: KnownChats
    buttons: CommandButtons
    pacer: Pacer = field(default_factory=Pacer)
    stickers: Stickers = field(default_factory=Stickers)
    has_drafts: bool = True
