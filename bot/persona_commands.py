"""The commands with which admins bring personas in and take them away, in chat.

Owns what they may send, how often, and what they are told. Knows no platform; cards are read by `bot.personas`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from bot.admins import Admins, name_of
from bot.commands import MAX_SUGGESTIONS, Argument, Choice, Command, CommandCall, CommandReply, ReplyPicture
from bot.errors import CommandError, PersonaError
from bot.personas.arrivals import REMOVED, Arrival, bring_in, files_of, remove
from bot.personas.cards.containers import CardError, NoCard
from bot.personas.library import PersonaLibrary, persona_files, persona_id_of
from bot.types import Author, IncomingFile
from bot.words import fold

logger = logging.getLogger(__name__)

MAX_CARD_BYTES = 20 * 1024 * 1024
MAX_CARDS = 10
CARDS_WITHIN_S = 600.0
DOWNLOAD_TIMEOUT_S = 60.0
MAX_WARNINGS = 5

HOW_TO_ADD = "Attach a character card to /persona add: a .png, .json or .charx file."
AS_A_FILE = "Photos lose the card that is in them: send it as a file, not as a photo."


def persona_commands(library: PersonaLibrary, folder: Path, admins: Admins) -> tuple[Command, ...]:
    """The commands, for the personas of `library` that lie in `folder`."""
    commands = PersonaCommands(library, folder, admins)
    new_name = Argument("name", "What to call it: a-z, 0-9 and -", is_required=False)
    old_name = Argument("name", "Who has to go", suggest=commands.suggest)
    return (
        Command(
            ("persona", "add"),
            "Bring in a character card, for everybody",
            commands.add,
            (new_name,),
            takes_file=True,
        ),
        Command(("persona", "remove"), "Take a persona away from everybody", commands.remove, (old_name,)),
    )


class PersonaCommands:
    """Adding and removing personas. `clock` counts seconds."""

    def __init__(
        self, library: PersonaLibrary, folder: Path, admins: Admins, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._library = library
        self._folder = folder
        self._admins = admins
        self._clock = clock
        self._added: dict[str, deque[float]] = {}
        self._changing = asyncio.Lock()

    async def add(self, call: CommandCall) -> CommandReply:
        """Bring in the card that came with the command, or with the message that it replies to."""
        self._admins.require(call.author)
        files = call.files or (call.reply_to.files if call.reply_to else ())
        if len(files) != 1:
            raise CommandError(HOW_TO_ADD if not files else "One card at a time, please.")
        self._count(call.author)
        data = await _read(files[0])
        async with self._changing:
            arrival = await self._bring_in(data, files[0], name=call.arguments.get("name", "").strip().lower())
            await self._library.refresh()
        logger.info("persona %s was added by %s", arrival.persona.id, name_of(call.author))
        return self._welcome(arrival)

    async def remove(self, call: CommandCall) -> CommandReply:
        """Move a persona's file out of sight."""
        self._admins.require(call.author)
        wanted = call.arguments.get("name", "").strip()
        found = self._library.find(wanted)
        persona_id = found.id if found is not None else wanted.lower()
        async with self._changing:
            files = await asyncio.to_thread(files_of, persona_id, self._folder) if persona_id else []
            if not files:
                raise CommandError(self._not_here(wanted, is_known=found is not None))
            for file in files:
                await asyncio.to_thread(_remove, file)
            await self._library.refresh()
        logger.info("persona %s was removed by %s", persona_id, name_of(call.author))
        name = found.name if found is not None else persona_id
        return CommandReply(f"{name} is gone. The file is kept in the folder `{REMOVED}` beside the other personas.")

    async def suggest(self, call: CommandCall, typed: str) -> tuple[Choice, ...]:
        """The personas that can be removed."""
        if not self._admins.is_admin(call.author):
            return ()
        files = await asyncio.to_thread(lambda: list(persona_files(self._folder)))
        ids = {persona_id_of(path) for path in files}
        wanted = fold(typed).strip()
        known = [one for one in self._library.all() if one.id in ids]
        fitting = [one for one in known if fold(one.name).startswith(wanted) or one.id.startswith(wanted)]
        return tuple(Choice(one.name, one.id) for one in fitting[:MAX_SUGGESTIONS])

    def _count(self, author: Author) -> None:
        """Raises `CommandError` where somebody brings too many."""
        now = self._clock()
        added = self._added.setdefault(name_of(author), deque())
        while added and added[0] <= now - CARDS_WITHIN_S:
            added.popleft()
        if len(added) >= MAX_CARDS:
            raise CommandError(f"That were {MAX_CARDS} cards in ten minutes. Please wait a little.")
        added.append(now)

    async def _bring_in(self, data: bytes, file: IncomingFile, *, name: str) -> Arrival:
        try:
            return await asyncio.to_thread(bring_in, data, file_name=file.name, folder=self._folder, name=name)
        except NoCard as error:
            hint = AS_A_FILE if (file.mime or "").startswith("image/") else HOW_TO_ADD
            raise CommandError(f"That did not work: {error}. {hint}") from None
        except CardError as error:
            raise CommandError(f"That did not work: {error}.") from None

    def _welcome(self, arrival: Arrival) -> CommandReply:
        persona = arrival.persona
        try:
            served = self._library.get(persona.id)
        except PersonaError:
            text = f"{persona.name} is in the folder now, and is live when I have been started again."
            return CommandReply(text, is_private=True)
        card = self._library.card(served)
        told = [f"{card.name} is here: {card.summary}", "", _counted(arrival)]
        told += [f"Note: {warning}." for warning in arrival.warnings[:MAX_WARNINGS]]
        picture = arrival.picture
        return CommandReply(
            "\n".join(told),
            pictures=(ReplyPicture(f"{card.id}.png", picture, alt=card.name),) if picture else (),
            choices=(Choice(f"Talk to {card.name}", card.id),),
            choice_path=("persona", "use"),
            choice_argument="name",
        )

    def _not_here(self, wanted: str, *, is_known: bool) -> str:
        if is_known:
            return "That persona lies in a folder that I do not change. Whoever runs me can take it away."
        return f"I know no persona called “{wanted[:80]}”."


def _counted(arrival: Arrival) -> str:
    persona = arrival.persona
    parts = (
        (len(persona.greetings), "greeting"),
        (len(persona.examples), "example"),
        (len(persona.lore), "lore entry"),
    )
    return f"I found {', '.join(_number(number, noun) for number, noun in parts)}."


def _number(number: int, noun: str) -> str:
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


async def _read(file: IncomingFile) -> bytes:
    if file.num_bytes is not None and file.num_bytes > MAX_CARD_BYTES:
        raise CommandError(f"That file is too large: at most {MAX_CARD_BYTES // 2**20} MB, please.")
    try:
        async with asyncio.timeout(DOWNLOAD_TIMEOUT_S):
            return await file.read(MAX_CARD_BYTES)
    except TimeoutError:
        raise CommandError("The file takes too long to come. Please try again.") from None


def _remove(path: Path) -> None:
    try:
        remove(path)
    except CardError as error:
        raise CommandError(f"That did not work: {error}.") from None
