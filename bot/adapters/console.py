"""A conversation in the terminal, and one question asked and answered.

Owns lines, files named in lines, and text that is printed once as it grows. Knows neither settings nor personas' files.
"""

import asyncio
import contextlib
import io
import mimetypes
import re
import shlex
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO
from uuid import uuid4

from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from bot.adapters.base import (
    Adapter,
    AdapterState,
    AdapterStatus,
    ConversationBrowser,
    MessageHandler,
    PlatformLimits,
    ReplyChannel,
)
from bot.commands import Command, CommandCall, CommandReply, CommandTable, ReplyPicture
from bot.errors import BotError, DeliveryError, MediaError
from bot.types import Author, ChatKind, Control, IncomingFile, IncomingMessage, Room, Speaker, StoredTurn
from engine.errors import EngineError
from engine.types import Explanation, Role

try:
    import readline  # noqa: F401 - gives `input` its arrow keys
    import termios
except ImportError:  # Windows has neither, and needs neither
    termios = None  # type: ignore[assignment]

ROOM = Room(platform="console", chat_id="local")
AUTHOR = Author(platform="console", user_id="local", display_name="")
NAMED = re.compile(r"\*\*(?P<name>.+?):\*\* ")
LIMITS = PlatformLimits(
    max_text_length=1_000_000, edit_interval_s=0.05, typing_interval_s=60.0, max_file_bytes=20 * 2**20
)
PROMPT = "You: "
PICTURE_ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})
FILE_ENDINGS = PICTURE_ENDINGS | {".apng", ".charx", ".json"}
WORD = re.compile(r"""'[^']+'|"[^"]+"|(?:\\.|\S)+""")
KEPT_CONTROLS = {"\n", "\t"}
WHAT_TO_DO = "Just write. /image FILE TEXT shows a picture, /help lists the commands, Ctrl-D ends."

MAX_BARS = 5
BAR_WIDTH = 30
# A name beside a bar; what is longer is cut.
MAX_BAR_NAME_LENGTH = 44

ReadLine = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Reasons:
    """What the last reply in a room was made of: `text` in words, `picture` where it was written to, if it was."""

    explanation: Explanation
    text: str
    picture: Path | None = None


Explain = Callable[[Room], Awaitable[Reasons]]
"""Explain the last reply in a room. Raises `BotError` or `EngineError`."""


class ConsoleChannel(ReplyChannel):
    """`ReplyChannel` that prints a growing text once: each edit adds only what is new."""

    limits = LIMITS

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        on_typing: Callable[[], None] | None = None,
        on_speaker: Callable[[str], None] | None = None,
    ) -> None:
        """`on_speaker` hears who speaks, where that is another persona than the one that was chosen."""
        self._write = write
        self._on_typing = on_typing
        self._on_speaker = on_speaker
        self._shown: dict[str, str] = {}
        self._speaker = ""

    async def show_typing(self) -> None:
        """Show that an answer is being written, until the first of it is sent."""
        if self._on_typing and not self._shown:
            self._on_typing()

    async def send(
        self,
        text: str,
        *,
        reply_to: str | None = None,  # noqa: ARG002 - one person, no quotes
        controls: tuple[Control, ...] = (),  # noqa: ARG002 - a terminal has no buttons
    ) -> str:
        """Print `text`, on a line of its own."""
        if self._shown:
            self._print("\n")
        elif self._speaker and self._on_speaker is not None:
            self._on_speaker(self._speaker)
        message_id = uuid4().hex
        self._shown[message_id] = text
        self._print(text)
        return message_id

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:  # noqa: ARG002
        """Print what `text` has more than what was printed of that message."""
        if message_id not in self._shown:
            raise DeliveryError("there is no such message in this terminal")
        shown = self._shown[message_id]
        if text.startswith(shown):
            self._print(text[len(shown) :])
        elif not shown.startswith(text):
            # Printed text cannot be taken back: better twice than wrong.
            self._print("\n" + text)
        self._shown[message_id] = text

    def speaking_as(self, speaker: Speaker) -> Self:
        """The same terminal, with the speaker's name on a line before what it says."""
        named = copy(self)
        named._shown, named._speaker = {}, speaker.name
        return named

    def _print(self, text: str) -> None:
        if printable := _printable(text):
            self._write(printable)


class RetellingChannel(ConsoleChannel):
    """A `ConsoleChannel` for a reply that is changed: what was printed once cannot be, so that it is printed anew."""

    async def edit(self, message_id: str, text: str, *, controls: tuple[Control, ...] = ()) -> None:
        """Print `text`, or what it has more than was printed of it by now."""
        self._shown.setdefault(message_id, "")
        await super().edit(message_id, text, controls=controls)

    async def delete(self, message_id: str) -> None:
        """Printed text cannot be taken back; it is forgotten all the same."""


def _printable(text: str) -> str:
    """`text` without escape sequences: those of a model, a persona or a file must not reach the terminal."""
    return "".join(char for char in text if char in KEPT_CONTROLS or not _is_control(char))


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"


async def ask_once(
    handler: MessageHandler, *, room: Room, text: str, image_paths: Sequence[Path], write: Callable[[str], None]
) -> None:
    """Ask one question and pass the answer to `write` as it grows. Raises `BotError` for a file that cannot be read."""
    message = _message(room, text, [incoming_file(path) for path in image_paths])
    await handler.handle(message, ConsoleChannel(write))
    write("\n")


def show_reasons(console: Console, reasons: Reasons) -> None:
    """Print bars for what mattered, the rest in words, and where the picture is."""
    explanation = reasons.explanation
    console.print(_printable(reasons.text), style="dim", markup=False, highlight=False)
    streams = explanation.stream_shares
    bars = [
        ("", [("picture", streams.image), ("words", streams.text), ("persona", streams.persona)]),
        ("took the picture for", [(one.text, one.share) for one in explanation.concepts]),
        ("words", [(one.text, one.share) for one in explanation.words]),
        ("persona", [(f"{one.kind}: {one.text}", one.share) for one in explanation.facets]),
    ]
    if explanation.has_prefix:
        for title, shares in bars:
            _print_bars(console, title, shares)
        console.print(explanation.method, style="dim", markup=False, highlight=False)
    if reasons.picture is not None:
        console.print(f"Drawn in {reasons.picture}", style="cyan", markup=False, highlight=False, soft_wrap=True)


def _print_bars(console: Console, title: str, shares: Sequence[tuple[str, float]]) -> None:
    highest = sorted((one for one in shares if round(one[1] * 100) > 0), key=lambda one: -one[1])[:MAX_BARS]
    if not highest:
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(max_width=MAX_BAR_NAME_LENGTH, no_wrap=True, overflow="ellipsis")
    for name, share in highest:
        table.add_row(
            escape(_printable(name)), Bar(highest[0][1], 0, share, width=BAR_WIDTH, color="cyan"), f"{share:.0%}"
        )
    if title:
        console.print(title, style="bold")
    console.print(table)


def incoming_file(path: Path) -> IncomingFile:
    """A file of this machine as part of a message. Raises `MediaError` where there is none."""
    try:
        num_bytes = path.stat().st_size
    except OSError:
        raise MediaError(f"there is no file {path}: check the name") from None
    if not path.is_file():
        raise MediaError(f"{path} is no file: name a picture")

    async def read(max_bytes: int) -> bytes:
        if num_bytes > max_bytes:
            raise MediaError(f"{path.name} is too large: at most {max_bytes / 2**20:.0f} MB, please")
        try:
            return await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise MediaError(f"{path.name} cannot be read: {error.strerror}") from None

    return IncomingFile(path.name, mimetypes.guess_type(path.name)[0], num_bytes, read)


def _message(room: Room, text: str, files: Sequence[IncomingFile]) -> IncomingMessage:
    return IncomingMessage(
        room=room, kind=ChatKind.DIRECT, message_id=uuid4().hex, author=AUTHOR, text=_as_text(text), files=tuple(files)
    )


def _as_text(typed: str) -> str:
    """Bytes that are no text come as lone surrogates, which can be neither kept nor printed."""
    return typed.encode(errors="replace").decode()


def pictures_in(line: str, endings: frozenset[str] = PICTURE_ENDINGS) -> tuple[str, list[Path]]:
    """The line without the picture files that it names, and these: a file dropped on a terminal becomes its path."""
    paths: list[Path] = []

    def take(match: re.Match[str]) -> str:
        word = match.group()
        path = _path_in(word, endings)
        if path is None:
            return word
        paths.append(path)
        return ""

    text = WORD.sub(take, line)
    return (re.sub(r"\s+", " ", text).strip() if paths else line), paths


def _path_of(word: str) -> Path:
    """The path that `word` means, quoted as in a shell or not."""
    try:
        return Path(shlex.split(word)[0]).expanduser()
    except (ValueError, IndexError, RuntimeError):
        return Path(word)


def _path_in(word: str, endings: frozenset[str]) -> Path | None:
    path = _path_of(word)
    try:
        return path if path.suffix.lower() in endings and path.is_file() else None
    except (OSError, ValueError):
        return None


class ConsoleAdapter(Adapter):
    """The terminal as an adapter: one room, one person, until Ctrl-D."""

    name = "console"

    def __init__(
        self,
        *,
        handler: MessageHandler,
        browser: ConversationBrowser,
        commands: CommandTable,
        persona_id: str | None = None,
        console: Console | None = None,
        read_line: ReadLine | None = None,
        explain: Explain | None = None,
    ) -> None:
        """With `explain`, each reply is followed by what it was made of."""
        self._handler = handler
        self._browser = browser
        self._commands = commands
        self._persona_id = persona_id
        self._console = console or Console(highlight=False)
        self._read_line = read_line
        self._explain = explain
        self._offer: CommandReply | None = None
        self._pictures_folder: Path | None = None
        self._status = AdapterStatus(AdapterState.STARTING)

    @property
    def status(self) -> AdapterStatus:
        """How it is doing right now."""
        return self._status

    async def run(self) -> None:
        """Talk until Ctrl-D or cancellation. Raises `BotError` where the wanted persona is not there."""
        if self._persona_id:
            await self._browser.choose(ROOM, self._persona_id)
        self._console.print(WHAT_TO_DO, style="dim")
        await self._show_last(await self._browser.history(ROOM))
        self._status = AdapterStatus(AdapterState.RUNNING)
        with _terminal_kept():
            try:
                await self._converse(self._read_line or TypedLines(sys.stdin))
            finally:
                self._status = AdapterStatus(AdapterState.STOPPED)
                self._console.print()

    async def _converse(self, read_line: ReadLine) -> None:
        while (line := await read_line()) is not None:
            if not line.strip():
                continue
            try:
                await self._take(line.strip())
            except BotError as error:
                self._say(str(error))

    async def _take(self, line: str) -> None:
        offer, self._offer = self._offer, None
        match = self._commands.match(line)
        if line.split()[0] == "/image":
            await self._send_picture(line.removeprefix("/image").strip())
        elif match and (match[0].takes_picture or match[0].takes_file):
            text, paths = pictures_in(line, FILE_ENDINGS if match[0].takes_file else PICTURE_ENDINGS)
            command, arguments = self._commands.match(text) or match
            await self._run(command, arguments, [incoming_file(path) for path in paths])
        elif match:
            await self._run(*match)
        elif re.match(r"/[a-z]+(\s|$)", line):
            self._say(f"There is no command {line.split()[0]}. /help lists what there is.")
        elif offer and line.isdecimal() and 1 <= int(line) <= len(offer.choices):
            await self._pick(offer, int(line) - 1)
        else:
            text, paths = pictures_in(line)
            await self._send(text, paths)

    async def _send_picture(self, rest: str) -> None:
        match = WORD.match(rest)
        if match is None:
            self._say("Name a picture: /image FILE, and what you want to say about it.")
            return
        await self._send(rest[match.end() :].strip(), [_path_of(match.group())])

    async def _send(self, text: str, paths: Sequence[Path]) -> None:
        message = _message(ROOM, text, [incoming_file(path) for path in paths])
        name = await self._speaker()
        waiting = Waiting(self._console, name)
        channel = ConsoleChannel(waiting.end_and_write, on_typing=waiting.begin, on_speaker=waiting.introduce)
        try:
            await self._handler.handle(message, channel)
        finally:
            waiting.end()
            self._console.print("\n")
        if self._explain is not None:
            await self._show_why(self._explain)

    async def _show_why(self, explain: Explain) -> None:
        try:
            show_reasons(self._console, await explain(ROOM))
        except EngineError as error:
            self._say(str(error))
        self._console.print()

    # Commands

    async def _run(self, command: Command, arguments: dict[str, str], files: Sequence[IncomingFile] = ()) -> None:
        missing = [one.name for one in command.arguments if one.is_required and one.name not in arguments]
        if missing:
            self._say(f"/{' '.join(command.path)} needs {' and '.join(missing)}.")
            return
        waiting = Waiting(self._console, await self._speaker())
        channel = RetellingChannel(waiting.end_and_write, on_speaker=waiting.introduce)
        call = CommandCall(ROOM, ChatKind.DIRECT, AUTHOR, arguments, tuple(files), channel=channel)
        waiting.begin("One moment")
        try:
            reply = await command.run(call)
        finally:
            waiting.end()
        if not waiting.is_over:
            self._say(reply.text)
        else:
            self._console.print("\n")
        for picture in reply.pictures:
            path = await asyncio.to_thread(self._write, picture)
            self._console.print(str(path), style="cyan", markup=False, highlight=False, soft_wrap=True)
        if command.path == ("help",):
            self._say("/image FILE TEXT: show a picture")
        if reply.choices:
            self._offer = reply
            for number, choice in enumerate(reply.choices, start=1):
                self._say(f"  {number}. {choice.label}")
            self._say("Type a number to choose.")

    async def _pick(self, offer: CommandReply, index: int) -> None:
        command = self._commands.find(*offer.choice_path)
        if command:
            await self._run(command, {offer.choice_argument: offer.choices[index].value})

    def _write(self, picture: ReplyPicture) -> Path:
        """Keep a command's picture where it can be opened; a terminal shows none itself."""
        if self._pictures_folder is None:
            self._pictures_folder = Path(tempfile.mkdtemp(prefix="commedia-"))
        number = sum(1 for _ in self._pictures_folder.iterdir()) + 1
        path = self._pictures_folder / f"{number}-{picture.name}"
        path.write_bytes(picture.data)
        return path

    # Showing

    async def _speaker(self) -> str:
        chosen = await self._browser.chosen(ROOM)
        return next((card.name for card in self._browser.personas() if card.id == chosen), chosen)

    async def _show_last(self, turns: Sequence[StoredTurn]) -> None:
        last = next((turn for turn in reversed(turns) if turn.role is Role.ASSISTANT), None)
        if last:
            waiting = Waiting(self._console, await self._speaker())
            named = NAMED.match(last.text)
            if named is not None:  # one of several in the room
                waiting.introduce(named["name"])
            text = last.text[named.end() :] if named is not None else last.text
            await ConsoleChannel(waiting.end_and_write).send(text)
            self._console.print("\n")

    def _say(self, text: str) -> None:
        self._console.print(_printable(text), style="cyan", markup=False, highlight=False)


class Waiting:
    """The time until the first words: a sign that somebody writes, then the speaker's name."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._sign: Status | None = None
        self._has_name = False

    @property
    def is_over(self) -> bool:
        """Whether words have come."""
        return self._has_name

    def begin(self, sign: str = "") -> None:
        """Show the sign, on a terminal: by default that the speaker writes."""
        if self._sign is None and self._console.is_terminal:
            self._sign = self._console.status(sign or f"{escape(self._name)} is writing")
            self._sign.start()

    def end(self) -> None:
        """Take the sign away."""
        if self._sign:
            self._sign.stop()
            self._sign = None

    def introduce(self, name: str) -> None:
        """From here on, somebody else speaks."""
        self.end()
        if self._has_name:
            self._console.print()
        self._name, self._has_name = name, False

    def end_and_write(self, text: str) -> None:
        """Take the sign away, and print `text` behind the speaker's name."""
        self.end()
        if not self._has_name:
            self._has_name = True
            self._console.print(f"[bold]{escape(self._name)}:[/bold] ", end="")
        self._console.print(text, end="", markup=False, highlight=False, soft_wrap=True)


class TypedLines:
    """Lines from a terminal or a pipe, read in a thread of their own so that the bot can end while one is awaited."""

    def __init__(self, stdin: TextIO) -> None:
        self._stdin = stdin

    async def __call__(self) -> str | None:
        """The next line, or `None` at the end."""
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str | None] = loop.create_future()

        def settle(read: str | None) -> None:
            if not line.done():
                line.set_result(read)

        def pass_on() -> None:
            read = self._read()
            # The loop may have ended in the meantime: then nobody waits for the line.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, read)

        threading.Thread(target=pass_on, name="console input", daemon=True).start()
        return await line

    def _read(self) -> str | None:
        if not self._stdin.isatty():
            return self._read_unbuffered()
        try:
            return _as_text(input(PROMPT))
        except UnicodeDecodeError as error:
            return error.object.decode(errors="replace")
        except (EOFError, OSError):
            return None

    def _read_unbuffered(self) -> str | None:
        # Unbuffered: a thread that is stuck in a buffer's lock would break the interpreter's shutdown.
        try:
            with io.FileIO(self._stdin.fileno(), closefd=False) as raw:
                line = raw.readline()
        except OSError:
            return None
        return line.decode(errors="replace") if line else None


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Leave the terminal as it was, also where the end came in the middle of a line."""
    if not (termios and sys.stdin.isatty()):
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
