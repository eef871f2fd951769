"""The terminal: lines in, text printed once, files by name, a clean end."""

import asyncio
import io
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bot.adapters.base import AdapterState
from bot.adapters.console import (
    ROOM,
    ConsoleAdapter,
    ConsoleChannel,
    Explain,
    Reasons,
    TypedLines,
    ask_once,
    pictures_in,
    show_reasons,
)
from bot.commands import Argument, Command, CommandCall, CommandReply, CommandTable, ReplyPicture
from bot.errors import BotError, CommandError, DeliveryError, MediaError, PersonaError
from bot.types import Room
from engine.errors import RequestError
from engine.types import Explanation, FacetShare, StreamShares, TokenShare
from tests.bot.adapters.web.rehearsal import RehearsalChat, rehearsal_commands

PNG = b"\x89PNG\r\n\x1a\n and more"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a dog.png"
    path.write_bytes(PNG)
    return path


async def converse(
    chat: RehearsalChat,
    lines: Iterable[str],
    *,
    persona_id: str | None = None,
    commands: CommandTable | None = None,
    explain: Explain | None = None,
) -> str:
    """Type `lines`, then Ctrl-D; what stood on the terminal in the end."""
    typed = iter(lines)

    async def read_line() -> str | None:
        return next(typed, None)

    screen = io.StringIO()
    adapter = ConsoleAdapter(
        handler=chat,
        browser=chat,
        commands=commands or rehearsal_commands(chat),
        persona_id=persona_id,
        console=Console(file=screen, width=200, highlight=False),
        read_line=read_line,
        explain=explain,
    )
    await asyncio.wait_for(adapter.run(), 10)
    assert adapter.status.state is AdapterState.STOPPED
    return screen.getvalue()


async def test_the_greeting_comes_first_and_a_reply_is_printed_once() -> None:
    chat = RehearsalChat()
    shown = await converse(chat, ["Hello, who are you?"])
    assert shown.index("Mina Okoro: Mind the step!") < shown.index("Mina Okoro: Oh, what a")
    assert shown.count("rainy evenings") == 1
    assert chat.received[0].text == "Hello, who are you?"
    assert chat.received[0].room == ROOM


async def test_a_persona_can_be_named_at_the_start() -> None:
    assert "Captain Brask: Fog's coming." in await converse(RehearsalChat(), [], persona_id="brask")


async def test_an_unknown_persona_is_refused() -> None:
    with pytest.raises(PersonaError, match="no persona nobody"):
        await converse(RehearsalChat(), [], persona_id="nobody")


async def test_blank_lines_are_no_messages() -> None:
    chat = RehearsalChat()
    await converse(chat, ["", "   "])
    assert chat.received == []


async def test_commands_run_and_their_choices_are_picked_by_number() -> None:
    chat = RehearsalChat()
    shown = await converse(chat, ["/help", "/persona list", "2", "Ahoy"])
    assert "Just write, or add a picture." in shown
    assert "/image FILE" in shown
    assert "2. Captain Brask" in shown
    assert "Captain Brask: You said: Ahoy" in shown
    assert [message.text for message in chat.received] == ["Ahoy"]


async def test_a_number_without_an_offer_is_a_message() -> None:
    chat = RehearsalChat()
    await converse(chat, ["/persona list", "Ahoy", "2"])
    assert [message.text for message in chat.received] == ["Ahoy", "2"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/nonsense", "There is no command /nonsense. /help lists what there is."),
        ("/persona use", "/persona use needs name."),
        ("/persona use nobody", "There is no persona nobody."),
        ("/image", "Name a picture"),
        ("/image missing.png look", "there is no file missing.png: check the name"),
    ],
)
async def test_a_slip_is_explained_and_the_conversation_goes_on(line: str, answer: str) -> None:
    chat = RehearsalChat()
    shown = await converse(chat, [line, "Still there?"])
    assert answer in shown
    assert [message.text for message in chat.received] == ["Still there?"]


async def test_a_picture_is_sent_by_command(picture: Path) -> None:
    chat = RehearsalChat()
    await converse(chat, [f"/image '{picture}' Who is this?"])
    [message] = chat.received
    assert message.text == "Who is this?"
    assert [(file.name, file.mime, file.num_bytes) for file in message.files] == [("a dog.png", "image/png", len(PNG))]
    assert await message.files[0].read(1000) == PNG


async def test_a_picture_named_in_a_message_goes_with_it(picture: Path) -> None:
    chat = RehearsalChat()
    escaped = str(picture).replace(" ", r"\ ")
    await converse(chat, [f"Look at {escaped} please"])
    assert chat.received[0].text == "Look at please"
    assert [file.name for file in chat.received[0].files] == ["a dog.png"]


@pytest.mark.parametrize("line", ["It's a dog's life", "see missing.png", 'an open "quote', "notes.txt"])
def test_other_words_stay(line: str) -> None:
    assert pictures_in(line) == (line, [])


async def test_a_file_larger_than_the_limit_is_refused(picture: Path) -> None:
    chat = RehearsalChat()
    await converse(chat, [f"/image '{picture}'"])
    with pytest.raises(MediaError, match=r"a dog\.png is too large"):
        await chat.received[0].files[0].read(3)


async def test_edits_print_only_what_is_new() -> None:
    written: list[str] = []
    channel = ConsoleChannel(written.append)
    first = await channel.send("Once")
    await channel.edit(first, "Once upon")
    await channel.edit(first, "Once upon")
    second = await channel.send("The end")
    await channel.edit(second, "The end.")
    assert written == ["Once", " upon", "\n", "The end", "."]


async def test_changed_text_is_never_lost() -> None:
    written: list[str] = []
    channel = ConsoleChannel(written.append)
    message = await channel.send("Once upon")
    await channel.edit(message, "Twice upon")
    assert "".join(written) == "Once upon\nTwice upon"


async def test_escape_sequences_do_not_reach_the_terminal() -> None:
    written: list[str] = []
    await ConsoleChannel(written.append).send("red \x1b[31malert\x07\x9b2J\nnext\tline")
    assert written == ["red [31malert2J\nnext\tline"]


async def test_an_unknown_message_cannot_be_edited() -> None:
    with pytest.raises(DeliveryError):
        await ConsoleChannel(lambda text: None).edit("nothing", "text")


async def test_one_question_is_answered_once(picture: Path) -> None:
    chat = RehearsalChat()
    written: list[str] = []
    await ask_once(chat, room=ROOM, text="Who is this?", image_paths=[picture], write=written.append)
    assert "".join(written) == chat.lines["mina"] + "\n"
    assert [file.name for file in chat.received[0].files] == ["a dog.png"]


@pytest.mark.parametrize("name", ["missing.png", "."])
async def test_one_question_about_no_file_is_refused(name: str, tmp_path: Path) -> None:
    chat = RehearsalChat()
    with pytest.raises(BotError, match="no file"):
        await ask_once(chat, room=ROOM, text="?", image_paths=[tmp_path / name], write=lambda text: None)
    assert chat.received == []


async def test_lines_come_from_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, "first\nzwölf\n".encode())
    os.close(writing)
    with open(reading, encoding="utf-8") as stdin:  # noqa: PTH123 - a descriptor, not a path
        lines = TypedLines(stdin)
        assert [await lines(), await lines(), await lines()] == ["first\n", "zwölf\n", None]


class Terminal(io.StringIO):
    """A standard input that people type into."""

    def isatty(self) -> bool:
        return True


async def test_bytes_that_are_no_text_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[str | UnicodeDecodeError] = [
        UnicodeDecodeError("utf-8", b"caf\xe9", 3, 4, "invalid"),
        "caf\udce9",
        "tea",
    ]

    def type_line(_prompt: str) -> str:
        line = typed.pop(0)
        if isinstance(line, UnicodeDecodeError):
            raise line
        return line

    monkeypatch.setattr("builtins.input", type_line)
    lines = TypedLines(Terminal())
    async with asyncio.timeout(10):
        assert [await lines(), await lines(), await lines()] == ["caf\ufffd", "caf?", "tea"]


async def test_a_question_that_is_no_text_is_asked_all_the_same() -> None:
    chat = RehearsalChat()
    await ask_once(chat, room=ROOM, text="caf\udce9", image_paths=[], write=lambda text: None)
    assert chat.received[0].text == "caf?"


def test_cancellation_ends_the_process_though_a_line_is_awaited() -> None:
    code = textwrap.dedent("""
        import asyncio
        from bot.adapters.console import ConsoleAdapter
        from tests.bot.adapters.web.rehearsal import RehearsalChat, rehearsal_commands

        async def main():
            chat = RehearsalChat()
            adapter = ConsoleAdapter(handler=chat, browser=chat, commands=rehearsal_commands(chat))
            running = asyncio.create_task(adapter.run())
            await asyncio.sleep(0.2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        asyncio.run(main())
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.communicate()


# Commands with pictures


async def look(call: CommandCall) -> CommandReply:
    sizes = [len(await file.read(1000)) for file in call.files]
    question = call.arguments.get("question", "")
    return CommandReply(f"{sizes} {question!r}", pictures=(ReplyPicture("why.png", PNG),))


LOOK = CommandTable((Command(("look",), "Look", look, (Argument("question", "What"),), takes_picture=True),))


async def test_a_commands_picture_is_written_and_its_path_printed(picture: Path) -> None:
    shown = await converse(RehearsalChat(), ["/look what is it", f"/look '{picture}' what is it"], commands=LOOK)
    assert "[] 'what is it'" in shown
    assert f"[{len(PNG)}] 'what is it'" in shown
    paths = [Path(line) for line in shown.splitlines() if line.endswith("why.png")]
    assert [path.read_bytes() for path in paths] == [PNG, PNG]
    shutil.rmtree(paths[0].parent)


# Why


EXPLANATION = Explanation(
    regions=(),
    concepts=(TokenShare("tabby cat", 0.75), TokenShare("[sofa]", 0.25), TokenShare("lynx", 0.0)),
    words=(TokenShare("what", 1.0),),
    facets=(FacetShare("lore", "A story of the sea. " * 20, 1.0),),
    stream_shares=StreamShares(0.6, 0.4, 0.0),
    method="Shares say what mattered.",
    has_prefix=True,
)


async def test_each_reply_is_followed_by_what_it_was_made_of() -> None:
    rooms: list[Room] = []

    async def explain(room: Room) -> Reasons:
        rooms.append(room)
        return Reasons(EXPLANATION, "Looked most at: the top", Path("why") / "one.png")

    shown = await converse(RehearsalChat(), ["Hello, who are you?", "/help"], explain=explain)
    assert rooms == [ROOM]
    assert shown.index("rainy evenings") < shown.index("Looked most at: the top") < shown.index("tabby cat")
    assert f"Drawn in {Path('why') / 'one.png'}" in shown


async def test_without_being_asked_nothing_is_explained() -> None:
    assert "Drawn in" not in await converse(RehearsalChat(), ["Hello, who are you?"])


@pytest.mark.parametrize("error", [RequestError("there is no reply to explain"), CommandError("it is gone")])
async def test_what_cannot_be_explained_is_told_and_the_conversation_goes_on(error: Exception) -> None:
    async def explain(room: Room) -> Reasons:
        raise error

    chat = RehearsalChat()
    shown = await converse(chat, ["Hello, who are you?", "Still there?"], explain=explain)
    assert shown.count(str(error)) == 2
    assert [message.text for message in chat.received] == ["Hello, who are you?", "Still there?"]


def printed(reasons: Reasons) -> str:
    screen = io.StringIO()
    show_reasons(Console(file=screen, width=100, highlight=False), reasons)
    return screen.getvalue()


def test_bars_are_longer_for_what_mattered_more() -> None:
    lines = printed(Reasons(EXPLANATION, "text")).splitlines()
    lengths = {name: next(line.count("█") for line in lines if name in line) for name in ("tabby cat", "[sofa]")}
    assert lengths["tabby cat"] == 30
    assert 9 <= lengths["[sofa]"] <= 11
    assert not any("lynx" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_no_escape_sequence_of_a_persona_reaches_the_terminal() -> None:
    facets = (FacetShare("traits", "I am \x1b[2Jbold.", 1.0),)
    shown = printed(Reasons(replace(EXPLANATION, facets=facets), "persona: \x1b]0;owned\x07"))
    assert "bold" in shown
    assert not {"\x1b", "\x07"} & set(shown)


async def test_no_escape_sequence_of_a_command_reaches_the_terminal() -> None:
    async def translate(_call: CommandCall) -> CommandReply:
        return CommandReply("Guten \x1b[2JTag.")

    commands = CommandTable((Command(("translate",), "Say it otherwise", translate),))
    shown = await converse(RehearsalChat(), ["/translate"], commands=commands)
    assert "Guten [2JTag." in shown
    assert "\x1b" not in shown


def test_a_reply_without_a_prefix_has_no_bars() -> None:
    nothing = Explanation((), (), (), (), StreamShares(0, 0, 0), "There is no picture.", has_prefix=False)
    assert printed(Reasons(nothing, "There is no picture.")) == "There is no picture.\n"
