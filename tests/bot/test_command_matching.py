"""Typed commands are found in the table, with their arguments."""

import pytest

from bot.commands import Argument, Command, CommandCall, CommandReply, CommandTable


async def say_nothing(call: CommandCall) -> CommandReply:
    return CommandReply("")


TABLE = CommandTable(
    (
        Command(("reset",), "Start over", say_nothing),
        Command(("persona", "use"), "Choose", say_nothing, (Argument("name", "Who"),)),
        Command(("give",), "Give", say_nothing, (Argument("amount", "How much"), Argument("to", "Whom"))),
    )
)


@pytest.mark.parametrize(
    ("text", "path", "arguments"),
    [
        ("/reset", ("reset",), {}),
        ("/RESET now", ("reset",), {}),
        ("/persona use Old Ben", ("persona", "use"), {"name": "Old Ben"}),
        ("/persona use", ("persona", "use"), {}),
        ("/give 3 the old man", ("give",), {"amount": "3", "to": "the old man"}),
    ],
)
def test_a_typed_command_is_found(text: str, path: tuple[str, ...], arguments: dict[str, str]) -> None:
    match = TABLE.match(text)
    assert match is not None
    assert (match[0].path, match[1]) == (path, arguments)


@pytest.mark.parametrize("text", ["reset", "/", "", "/persona", "/nonsense", " /reset"])
def test_other_text_is_no_command(text: str) -> None:
    assert TABLE.match(text) is None
