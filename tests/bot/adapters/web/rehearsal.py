"""A chat without a model: personas, remembered conversations and streamed lines, for the page and the console.

Implements `MessageHandler` and `ConversationBrowser` as small as they can be.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count

from bot.adapters.base import ReplyChannel
from bot.commands import Argument, Choice, Command, CommandCall, CommandReply, CommandTable
from bot.errors import BotError, MediaError, PersonaError
from bot.types import Attachment, IncomingMessage, PersonaCard, Room, StoredTurn
from engine.types import Role

CARDS = (
    PersonaCard("mina", "Mina Okoro", "Keeps the night market's smallest bookshop and remembers every reader.", "en"),
    PersonaCard("brask", "Captain Brask", "A river pilot who distrusts maps and loves weather.", "en"),
    PersonaCard("lin", "林小满", "苏州评弹茶馆的说书人，爱讲故事，也爱听故事。", "zh"),
    PersonaCard("dr-vell", "Dr. Ada Vell", "Physics teacher with a drawer full of broken toys.", "en"),
    PersonaCard("nadia", "نادية", "مرشدة سياحية في فاس القديمة", "ar"),
)
GREETINGS = {
    "mina": "Mind the step! The lamp has been *meaning* to be fixed. What are you reading these days?",
    "brask": "Fog's coming. Sit, and tell me where you're bound.",
    "lin": "客官里边请。今天想听哪一段？",
    "nadia": "أهلا وسهلا! أين نبدأ؟",
}
LINES = {
    "mina": "Oh, what a **good dog**. That is the look of somebody who has heard the biscuit tin.\n\n"
    "I have three books for such a face:\n\n"
    "1. *The Patient Shepherd*, for rainy evenings\n"
    "2. *Nine Walks Before Breakfast*\n"
    "3. a very old atlas, because he looks as if he plans to go far",
}


class RehearsalChat:
    """Answers each message with its persona's line, word by word."""

    def __init__(self, *, seconds_per_word: float = 0.0, cards: tuple[PersonaCard, ...] = CARDS) -> None:
        self.cards = cards
        self.seconds_per_word = seconds_per_word
        self.received: list[IncomingMessage] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.script: Callable[[IncomingMessage, ReplyChannel], Awaitable[None]] | None = None
        self.lines = dict(LINES)
        self._chosen: dict[Room, str] = {}
        self._turns: dict[tuple[Room, str], list[StoredTurn]] = defaultdict(list)
        self._pictures: dict[tuple[Room, str], bytes] = {}
        self._ids = count(1)

    async def handle(self, message: IncomingMessage, channel: ReplyChannel) -> None:
        self.received.append(message)
        if self.script:
            await self.script(message, channel)
            return
        persona_id = await self.chosen(message.room)
        try:
            attachments = [await self._keep(message.room, await file.read(20 * 2**20)) for file in message.files]
        except MediaError as error:
            await channel.send(str(error))
            return
        self._remember(message.room, persona_id, Role.USER, message.text, tuple(attachments))
        await channel.show_typing()
        await self.gate.wait()
        words = self.lines.get(persona_id, f"You said: {message.text}").split(" ")
        shown = words[0]
        message_id = await channel.send(shown)
        try:
            for word in words[1:]:
                await asyncio.sleep(self.seconds_per_word)
                shown = f"{shown} {word}"
                await channel.edit(message_id, shown)
        finally:
            self._remember(message.room, persona_id, Role.ASSISTANT, shown)

    async def _keep(self, room: Room, data: bytes) -> Attachment:
        if not data.startswith((b"\x89PNG", b"\xff\xd8")):
            raise MediaError("That file is no picture I can see. Please send a JPEG or PNG.")
        digest = hashlib.sha256(data).hexdigest()
        self._pictures[room, digest] = data
        return Attachment(digest, "image/png", len(data), 1, 1)

    def _remember(
        self, room: Room, persona_id: str, role: Role, text: str, attachments: tuple[Attachment, ...] = ()
    ) -> None:
        turn = StoredTurn(next(self._ids), role, text, datetime.now(UTC), attachments=attachments)
        self._turns[room, persona_id].append(turn)

    def personas(self) -> tuple[PersonaCard, ...]:
        return self.cards

    async def chosen(self, room: Room) -> str:
        if not self.cards:
            raise PersonaError("There is no persona yet: put one into personas/.")
        return self._chosen.get(room, self.cards[0].id)

    async def choose(self, room: Room, persona_id: str) -> None:
        if persona_id not in {card.id for card in self.cards}:
            raise PersonaError(f"There is no persona {persona_id}.")
        self._chosen[room] = persona_id

    async def history(self, room: Room, *, max_turns: int = 200) -> list[StoredTurn]:
        persona_id = await self.chosen(room)
        if not self._turns[room, persona_id]:
            self._remember(room, persona_id, Role.ASSISTANT, GREETINGS.get(persona_id, "Hello there."))
        return list(self._turns[room, persona_id][-max_turns:])

    async def start_over(self, room: Room) -> None:
        del self._turns[room, await self.chosen(room)]

    async def picture(self, room: Room, digest: str) -> bytes:
        if (room, digest) not in self._pictures:
            raise BotError("no such picture in this room")
        return self._pictures[room, digest]


def rehearsal_commands(chat: RehearsalChat) -> CommandTable:
    """The commands that every platform has, over `chat`."""

    async def list_personas(call: CommandCall) -> CommandReply:
        choices = tuple(Choice(card.name, card.id) for card in chat.personas())
        return CommandReply("Who shall it be?", choices=choices, choice_path=("persona", "use"), choice_argument="name")

    async def use(call: CommandCall) -> CommandReply:
        await chat.choose(call.room, call.arguments["name"])
        return CommandReply((await chat.history(call.room))[0].text)

    async def reset(call: CommandCall) -> CommandReply:
        await chat.start_over(call.room)
        return CommandReply("All forgotten.")

    async def show_help(call: CommandCall) -> CommandReply:
        return CommandReply("Just write, or add a picture.", is_private=True)

    return CommandTable(
        (
            Command(("persona", "list"), "Who is here", list_personas),
            Command(("persona", "use"), "Talk to somebody else", use, (Argument("name", "Whom"),)),
            Command(("reset",), "Start over", reset),
            Command(("help",), "What there is", show_help),
        )
    )
